#include "tests/support/memory_database.h"

#include <algorithm>
#include <mutex>

#include "common/assert.h"

namespace kelda::testing {

using MemoryTree = MemoryDatabase::MemoryTree;
using Operation = MemoryDatabase::Operation;

void MemoryTree::set(const std::string& key, std::optional<std::string> value) {
  if (value) {
    map.insert_or_assign(key, *std::move(value));
  } else {
    map.erase(key);
  }
  count.store(map.size());
}

namespace {

constexpr std::size_t kMaxKey = 1024, kMaxValue = 1 << 20;

class MemoryScan : public Scan {
 public:
  explicit MemoryScan(MemoryTree& tree) : tree_(tree) {}
  Result<bool> seek(std::string_view key) override { return move(tree_.map.lower_bound(key)); }
  Result<bool> seek_back(std::string_view key) override {
    return before(key.empty() ? tree_.map.end() : tree_.map.upper_bound(key));
  }
  Result<bool> next() override { return move(tree_.map.upper_bound(key_)); }
  Result<bool> prev() override { return before(tree_.map.lower_bound(key_)); }
  std::string_view key() const override { return key_; }
  Result<std::string_view> value() override { return tree_.map.find(key_)->second; }

 private:
  using Iterator = decltype(MemoryTree::map)::iterator;
  bool move(Iterator at) {
    if (at == tree_.map.end()) return false;
    key_ = at->first;
    return true;
  }
  bool before(Iterator at) { return at != tree_.map.begin() && move(std::prev(at)); }

  MemoryTree& tree_;
  std::string key_;
};

}  // namespace

class MemoryTransaction : public Transaction {
 public:
  explicit MemoryTransaction(MemoryDatabase& database) : database_(database) {}
  ~MemoryTransaction() override { end(true); }

  void set_lock_timeout_us(std::uint64_t) override {}  // its locks are never waited for

  Result<bool> get(Tree tree, std::string_view key, std::string& value) override {
    TRY(start(Operation::kRead, key));
    const auto& map = database_.of(tree).map;
    const auto found = map.find(key);
    if (found == map.end()) return false;
    value = found->second;
    return true;
  }
  Result<bool> get_for_update(Tree tree, std::string_view key, std::string& value) override {
    return get(tree, key, value);
  }

  Result<bool> put(Tree tree, std::string_view key, std::string_view value, PutIf condition) override {
    KELDA_ASSERT(!key.empty() && key.size() <= kMaxKey && value.size() <= kMaxValue);
    TRY(start(Operation::kWrite, key));
    const bool present = database_.of(tree).map.contains(key);
    if ((condition == PutIf::kAbsent && present) || (condition == PutIf::kPresent && !present)) return false;
    change(database_.of(tree), std::string(key), std::string(value));
    return true;
  }
  Result<bool> remove(Tree tree, std::string_view key) override {
    KELDA_ASSERT(!key.empty() && key.size() <= kMaxKey);
    TRY(start(Operation::kWrite, key));
    if (!database_.of(tree).map.contains(key)) return false;
    change(database_.of(tree), std::string(key), std::nullopt);
    return true;
  }
  Result<> lock_keys(Tree, std::span<const std::string_view>) override { return start(Operation::kRead, ""); }
  Result<> lock_tree(Tree, bool) override { return start(Operation::kRead, ""); }
  Result<std::unique_ptr<Scan>> scan(Tree tree) override {
    TRY(start(Operation::kRead, ""));
    return std::make_unique<MemoryScan>(database_.of(tree));
  }
  Result<> clear(Tree tree) override {
    TRY(start(Operation::kWrite, ""));
    MemoryTree& cleared = database_.of(tree);
    while (!cleared.map.empty()) change(cleared, cleared.map.begin()->first, std::nullopt);
    return {};
  }

  Result<std::uint64_t> savepoint() override { return undo_.size(); }
  Result<> roll_back_to(std::uint64_t savepoint) override {
    undo_to(savepoint);
    return {};
  }
  Result<> commit() override {
    const Lsn lsn = TRY(commit_no_wait());
    return database_.wait_durable(lsn);
  }
  Result<Lsn> commit_no_wait() override {
    if (database_.fail) {
      if (auto error = database_.fail(Operation::kCommit, "")) {
        end(true);
        return *std::move(error);
      }
    }
    const Lsn lsn{undo_.empty() ? 0 : ++database_.lsn_};
    end(false);
    return lsn;
  }
  Result<> roll_back() override {
    end(true);
    return {};
  }

 private:
  struct Undo {
    MemoryTree* tree;
    std::string key;
    std::optional<std::string> old;
  };

  Result<> start(Operation operation, std::string_view key) {
    if (database_.fail) {
      if (auto error = database_.fail(operation, key)) return *std::move(error);
    }
    if (!started_) database_.transaction_.lock();
    started_ = true;
    return {};
  }
  void change(MemoryTree& tree, std::string key, std::optional<std::string> value) {
    const auto found = tree.map.find(key);
    undo_.push_back({&tree, key, found == tree.map.end() ? std::nullopt : std::optional(found->second)});
    tree.set(key, std::move(value));
  }
  void undo_to(std::size_t size) {
    while (undo_.size() > size) {
      Undo undo = std::move(undo_.back());
      undo_.pop_back();
      undo.tree->set(undo.key, std::move(undo.old));
    }
  }
  void end(bool undo) {
    if (undo) undo_to(0);
    undo_.clear();
    if (started_) database_.transaction_.unlock();
    started_ = false;
  }

  MemoryDatabase& database_;
  bool started_ = false;
  std::vector<Undo> undo_;
};

MemoryDatabase::MemoryDatabase() {
  trees_.reserve(256);
}  // never moves: readers hold no latch
MemoryDatabase::~MemoryDatabase() = default;

Result<Tree> MemoryDatabase::tree(std::string_view name, bool create) {
  const std::scoped_lock guard(latch_);
  auto found = names_.find(name);
  if (found == names_.end()) {
    if (!create) return Code::kNotFound;
    KELDA_ASSERT(trees_.size() < trees_.capacity());
    trees_.push_back(std::make_unique<MemoryTree>());
    found = names_.emplace(name, trees_.size() - 1).first;
  }
  return Tree(TreeId(found->second), nullptr);
}

Result<std::vector<std::string>> MemoryDatabase::tree_names() {
  const std::scoped_lock guard(latch_);
  std::vector<std::string> names;
  for (const auto& [name, index] : names_) names.push_back(name);
  return names;
}

Result<> MemoryDatabase::drop_tree(std::string_view name) {
  const std::scoped_lock guard(latch_);
  const auto found = names_.find(name);
  if (found == names_.end()) return Code::kNotFound;
  names_.erase(found);
  return {};
}

std::unique_ptr<Transaction> MemoryDatabase::begin() {
  return std::make_unique<MemoryTransaction>(*this);
}

Result<bool> MemoryDatabase::get(Tree tree, std::string_view key, std::string& value, Lsn* lsn) {
  MemoryTransaction transaction(*this);
  const bool found = TRY(transaction.get(tree, key, value));
  if (lsn != nullptr) *lsn = Lsn(lsn_.load());
  return found;
}

Result<> MemoryDatabase::put(Tree tree, std::string_view key, std::string_view value) {
  MemoryTransaction transaction(*this);
  TRY(transaction.put(tree, key, value, PutIf::kAlways));
  return transaction.commit();
}

Result<bool> MemoryDatabase::remove(Tree tree, std::string_view key) {
  MemoryTransaction transaction(*this);
  const bool removed = TRY(transaction.remove(tree, key));
  TRY(transaction.commit());
  return removed;
}

Result<> MemoryDatabase::wait_durable(Lsn lsn) {
  ++waits;
  return durable ? durable(lsn) : Result<>();
}

std::uint64_t MemoryDatabase::count(Tree tree) const {
  return of(tree).count.load();
}

}  // namespace kelda::testing
