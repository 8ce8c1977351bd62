// A database on a simulated disk, and an account of what it was told: what may be found after a power cut.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine_support.h"

namespace kelda::engine {

// The database borrows the disk, which stays when it goes.
Result<std::unique_ptr<Database>> open_database(blockdev::MemoryDevice& disk, bool create = false);
// The whole database needs little memory, so that many can be opened one after the other.
inline constexpr std::uint64_t kSessionMemoryBytes = 8_MiB;

// Trees by name, keys and values.
using Content = std::map<std::string, std::map<std::string, std::string>>;

// What may be found: the acknowledged state, or one of those that follow it, each by one commit that is under way.
struct Told {
  Content acknowledged;
  std::vector<Content> under_way;

  const Content& newest() const { return under_way.empty() ? acknowledged : under_way.back(); }
};

// A database that a script works on; keeps account of what it was told.
class Session {
 public:
  explicit Session(std::unique_ptr<blockdev::MemoryDevice> disk, Told told_before = {})
      : told(std::move(told_before)), disk_(std::move(disk)) {}

  Result<> open(bool create = false);
  Result<> close() { return db_->close(); }
  // The database goes as it is; what it had in flight fails.
  void abandon() { db_.reset(); }
  Database& db() { return *db_; }
  blockdev::MemoryDevice& disk() { return *disk_; }

  Result<> make_tree(const std::string& name);
  Result<> drop_tree(const std::string& name);

  class Txn;
  Txn begin();
  // One write in a transaction of its own.
  Result<> put(const std::string& tree, const std::string& key, const std::string& value);
  // Until dropped trees are reclaimed and the background rests.
  void rest();

  Told told;

 private:
  friend class Txn;
  Result<> committing(Content next, FunctionRef<Result<>()> commit);
  std::unique_ptr<blockdev::MemoryDevice> disk_;
  std::unique_ptr<Database> db_;
};

class Session::Txn {
 public:
  explicit Txn(Session& session) : session_(session), txn_(session.db().begin()) {}
  Result<> put(const std::string& tree, const std::string& key, const std::string& value);
  Result<> remove(const std::string& tree, const std::string& key);
  Result<> clear(const std::string& tree);
  Result<> commit();
  // The commit is under way until some later wait; returns what to wait for.
  Result<Lsn> commit_no_wait();
  Result<> roll_back() { return txn_->roll_back(); }
  Transaction& raw() { return *txn_; }

 private:
  Content changed() const;
  Session& session_;
  std::unique_ptr<Transaction> txn_;
  std::vector<std::function<void(Content&)>> changes_;
};

}  // namespace kelda::engine
