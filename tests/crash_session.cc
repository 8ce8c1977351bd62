#include "crash_session.h"

namespace kelda::engine {
namespace {

// The database owns its device; the disk stays when it goes.
class Borrowed final : public blockdev::BlockDevice {
 public:
  explicit Borrowed(blockdev::MemoryDevice& disk) : disk_(disk) {}
  const blockdev::DeviceInfo& info() const override { return disk_.info(); }
  void submit(std::span<blockdev::Request* const> requests) override { disk_.submit(requests); }
  blockdev::DeviceStats stats() const override { return disk_.stats(); }

 private:
  blockdev::MemoryDevice& disk_;
};

}  // namespace

Result<std::unique_ptr<Database>> open_database(blockdev::MemoryDevice& disk, bool create) {
  DatabaseOptions options;
  options.memory_bytes = kSessionMemoryBytes;
  options.create_if_blank = create;
  return Database::open(std::make_unique<Borrowed>(disk), options);
}

Result<> Session::open(bool create) {
  db_ = TRY(open_database(*disk_, create));
  return {};
}

Result<> Session::committing(Content next, FunctionRef<Result<>()> commit) {
  told.under_way.push_back(std::move(next));
  TRY(commit());
  // Whatever was under way came before it in the log.
  told.acknowledged = std::move(told.under_way.back());
  told.under_way.clear();
  return {};
}

Result<> Session::make_tree(const std::string& name) {
  Content next = told.newest();
  next[name];
  return committing(std::move(next), [&]() -> Result<> { return TRY(db_->tree(name, true)), Result<>(); });
}

Result<> Session::drop_tree(const std::string& name) {
  Content next = told.newest();
  next.erase(name);
  return committing(std::move(next), [&] { return db_->drop_tree(name); });
}

Session::Txn Session::begin() { return Txn(*this); }

Result<> Session::put(const std::string& tree, const std::string& key, const std::string& value) {
  Txn txn = begin();
  TRY(txn.put(tree, key, value));
  return txn.commit();
}

void Session::rest() { runtime::Core::current().sleep_until(runtime::now_ns() + 1'000'000'000); }

Result<> Session::Txn::put(const std::string& tree, const std::string& key, const std::string& value) {
  TRY(txn_->put(TRY(session_.db().tree(tree, false)), key, value));
  changes_.push_back([=](Content& content) { content[tree][key] = value; });
  return {};
}

Result<> Session::Txn::remove(const std::string& tree, const std::string& key) {
  TRY(txn_->remove(TRY(session_.db().tree(tree, false)), key));
  changes_.push_back([=](Content& content) { content[tree].erase(key); });
  return {};
}

Result<> Session::Txn::clear(const std::string& tree) {
  TRY(txn_->clear(TRY(session_.db().tree(tree, false))));
  changes_.push_back([=](Content& content) { content[tree].clear(); });
  return {};
}

Content Session::Txn::changed() const {
  Content content = session_.told.newest();
  for (const auto& change : changes_) change(content);
  return content;
}

Result<> Session::Txn::commit() {
  return session_.committing(changed(), [&] { return txn_->commit(); });
}

Result<Lsn> Session::Txn::commit_no_wait() {
  session_.told.under_way.push_back(changed());
  return txn_->commit_no_wait();
}

}  // namespace kelda::engine
