// A kelda::Database in memory, for tests of what lies above the engine. Transactions run one after the other (one
// mutex, held from a transaction's first operation to its end), so it is serializable; nothing is written anywhere.
//
// Faults: `fail` is asked before each operation of a transaction and may answer with an error; `durable` may make
// waiting for durability fail.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kelda/kelda.h"
#include "runtime/sync.h"

namespace kelda::testing {

class MemoryDatabase : public Database {
 public:
  enum class Operation { kRead, kWrite, kCommit };
  using Fail = std::function<std::optional<Error>(Operation, std::string_view key)>;

  MemoryDatabase();
  ~MemoryDatabase() override;

  Fail fail;
  std::function<Result<>(Lsn)> durable;
  std::atomic<std::uint64_t> waits{0};  // calls of wait_durable
  std::atomic<bool> failed{false};      // what health() says
  std::function<void()> on_checkpoint;  // called by checkpoint(), which may be long

  Result<> close() override { return {}; }
  Result<Tree> tree(std::string_view name, bool create) override;
  Result<std::vector<std::string>> tree_names() override;
  Result<> drop_tree(std::string_view name) override;
  std::unique_ptr<Transaction> begin() override;
  Result<bool> get(Tree tree, std::string_view key, std::string& value, Lsn* lsn) override;
  Result<> put(Tree tree, std::string_view key, std::string_view value) override;
  Result<bool> remove(Tree tree, std::string_view key) override;
  Result<> wait_durable(Lsn lsn) override;
  std::uint64_t count(Tree tree) const override;
  Result<> checkpoint() override {
    if (on_checkpoint) on_checkpoint();
    return {};
  }
  Result<> health() const override {
    return failed.load() ? Result<>(Error(Code::kFailed, "flush failed: input/output error")) : Result<>();
  }
  DatabaseStats stats() const override { return {}; }
  const blockdev::BlockDevice& device() const override { __builtin_abort(); }

  struct MemoryTree {
    std::map<std::string, std::string, std::less<>> map;
    std::atomic<std::uint64_t> count{0};
    void set(const std::string& key, std::optional<std::string> value);
  };

 private:
  friend class MemoryTransaction;
  MemoryTree& of(Tree tree) const { return *trees_.at(tree.id().value); }

  runtime::Mutex transaction_;        // guards the maps
  mutable runtime::SpinLatch latch_;  // guards names_ and trees_ while trees are made
  std::map<std::string, std::uint64_t, std::less<>> names_;
  std::vector<std::unique_ptr<MemoryTree>> trees_;
  std::atomic<std::uint64_t> lsn_{0};
};

}  // namespace kelda::testing
