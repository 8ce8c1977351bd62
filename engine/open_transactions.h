// The transactions that programs have open, by the core that called each of them last.
//
// Contract: add() when a transaction begins, remove() when it ends, and called() at every call in between, each by the
// fiber that uses the transaction. A transaction of the list is thus used by the fiber that is noted there, or was handed to
// another that has not called it yet. Thread-safe; a core's list has a latch of its own, so that cores do not meet.
// The latch is also what keeps a transaction as it is while another one of its fiber looks at it: whoever takes it
// over takes it out of this list first.
#pragma once

#include <atomic>
#include <memory>

#include "common/function_ref.h"
#include "runtime/sync.h"

namespace kelda::engine {

class TransactionImpl;

class OpenTransactions {
 public:
  struct Member {
    explicit Member(TransactionImpl& t) : transaction(t) {}
    TransactionImpl& transaction;
    const runtime::Fiber* fiber = nullptr;  // null: in no list
    std::uint32_t core = 0;
    Member* next = nullptr;
    Member** link = nullptr;
  };

  OpenTransactions() : lists_(std::make_unique<List[]>(runtime::Core::kMaxCores)) {}

  void add(Member& member);
  void remove(Member& member);
  void called(Member& member) {
    if (member.fiber != &runtime::Core::current().current_fiber()) [[unlikely]] move_here(member);
  }
  // The database's own transaction for one call of the caller: counted, but nobody else can meet it in its fiber.
  std::uint32_t call_started() {
    const std::uint32_t core = runtime::Core::current().index();
    lists_[core].calls.fetch_add(1, std::memory_order_seq_cst);
    return core;
  }
  void call_ended(std::uint32_t core) { lists_[core].calls.fetch_sub(1, std::memory_order_relaxed); }

  // Whether `matches` holds for one of the calling fiber's transactions besides `self` (may be null).
  bool any_of_this_fiber(const TransactionImpl* self, FunctionRef<bool(const TransactionImpl&)> matches);
  std::uint64_t count();
  // Takes all out of their lists, telling `each`. Nobody uses them meanwhile.
  void abandon(FunctionRef<void(TransactionImpl&)> each);

 private:
  struct alignas(64) List {
    runtime::SpinLatch latch;
    std::atomic<std::uint32_t> calls{0};
    Member* first = nullptr;
  };

  void move_here(Member& member);
  static void unlink(Member& member);

  std::unique_ptr<List[]> lists_;
};

}  // namespace kelda::engine
