// See open_transactions.h.
#include "engine/open_transactions.h"

#include <mutex>

namespace kelda::engine {

void OpenTransactions::add(Member& member) {
  runtime::Core& core = runtime::Core::current();
  member.core = core.index();
  List& list = lists_[member.core];
  std::scoped_lock guard(list.latch);
  member.fiber = &core.current_fiber();
  member.next = list.first;
  member.link = &list.first;
  if (member.next != nullptr) member.next->link = &member.next;
  list.first = &member;
}

void OpenTransactions::unlink(Member& member) {
  *member.link = member.next;
  if (member.next != nullptr) member.next->link = member.link;
  member.fiber = nullptr;
}

void OpenTransactions::remove(Member& member) {
  if (member.fiber == nullptr) return;
  std::scoped_lock guard(lists_[member.core].latch);
  unlink(member);
}

void OpenTransactions::move_here(Member& member) {
  if (member.fiber == nullptr) return;
  remove(member);
  add(member);
}

bool OpenTransactions::any_of_this_fiber(const TransactionImpl* self, FunctionRef<bool(const TransactionImpl&)> matches) {
  runtime::Core& core = runtime::Core::current();
  const runtime::Fiber* const fiber = &core.current_fiber();
  List& list = lists_[core.index()];
  std::scoped_lock guard(list.latch);
  for (const Member* member = list.first; member != nullptr; member = member->next) {
    if (member->fiber == fiber && &member->transaction != self && matches(member->transaction)) return true;
  }
  return false;
}

std::uint64_t OpenTransactions::count() {
  std::uint64_t count = 0;
  for (std::uint32_t core = 0; core < runtime::Core::kMaxCores; ++core) {
    List& list = lists_[core];
    std::scoped_lock guard(list.latch);
    count += list.calls.load(std::memory_order_seq_cst);
    for (const Member* member = list.first; member != nullptr; member = member->next) ++count;
  }
  return count;
}

void OpenTransactions::abandon(FunctionRef<void(TransactionImpl&)> each) {
  for (std::uint32_t core = 0; core < runtime::Core::kMaxCores; ++core) {
    std::scoped_lock guard(lists_[core].latch);
    while (lists_[core].first != nullptr) {
      TransactionImpl& transaction = lists_[core].first->transaction;
      unlink(*lists_[core].first);
      each(transaction);
    }
  }
}

}  // namespace kelda::engine
