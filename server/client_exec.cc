// EXEC: the queued commands in one transaction. A command that fails for the user's fault reports its error and is
// undone alone (a savepoint); one that meets a conflict makes the whole start again.
#include <array>

#include "common/planted_bug.h"
#include "server/client.h"
#include "server/command_keys.h"

namespace kelda::server {

namespace {

// What a queue will need of one database.
struct Needs {
  bool walks = false, writes = false, empties = false;
  std::vector<std::string_view> keys;  // to be written, or watched

  // A lock on the whole that is shared first and exclusive later could deadlock.
  bool whole() const { return walks || empties; }
  bool exclusive() const { return empties || (walks && (writes || !keys.empty())); }
};
using AllNeeds = std::array<Needs, kDatabaseCount>;

void add_needs(const QueuedCommand& queued, std::uint32_t& db, AllNeeds& needs) {
  const Command& command = queued.command();
  const auto args = queued.args();
  if (command.name == "select") db = database_index(args[1]).value_or(db);
  const bool writes = (command.flags & kWrite) != 0;
  if ((command.flags & kWholeTree) != 0) {
    const bool all = command.name == "flushall";
    for (std::uint32_t i = 0; i < kDatabaseCount; ++i) {
      if (!all && i != db) continue;
      (writes ? needs[i].empties : needs[i].walks) = true;
    }
  }
  if (!writes) return;
  needs[db].writes = true;
  for (const std::string_view key : keys_of(command, args)) {
    // A key that is too long fails in its own command.
    if (key.size() <= kMaxKeyBytes) needs[db].keys.push_back(key);
  }
}

}  // namespace

// Everything is locked first, databases before keys and each in one order for all clients, so that two EXECs never wait
// for each other in a circle.
Result<> Client::lock_for_queue() {
  AllNeeds needs;
  for (const WatchSet::Key& watched : watches.keys()) needs[watched.db].keys.push_back(watched.key);
  std::uint32_t current = db;
  for (const QueuedCommand& queued : multi.queue) {
    add_needs(queued, current, needs);
    TRY(give_way());
  }
  for (std::uint32_t index = 0; index < kDatabaseCount; ++index) {
    if (needs[index].whole()) TRY(keys.lock_database(index, needs[index].exclusive()));
  }
  for (std::uint32_t index = 0; index < kDatabaseCount; ++index) {
    const Needs& need = needs[index];
    if (!need.exclusive() && !need.keys.empty()) TRY(keys.lock(index, need.keys));
  }
  return {};
}

Result<bool> Client::watched_unchanged() {
  for (const WatchSet::Key& watched : watches.keys()) {
    bool expired = false;
    TRY(give_way());
    TRY(keys.lock_watched(watched.db, watched.key, expired));
    if (expired && !watched.was_expired) return false;
  }
  return !watches.changed() || planted(Bug::kExecIgnoresWatch);
}

Result<> Client::run_queued(const QueuedCommand& queued, Reply& reply) {
  const KeyAccess::Savepoint savepoint = TRY(keys.savepoint());
  const auto args = queued.args();
  const std::size_t mark = reply.mark();
  // CLIENT and HELLO may have changed it.
  reply.set_resp3(resp3);
  Call call{*this, server, queued.command(), args, reply, keys};
  const runtime::TimeNs began_ns = runtime::now_ns();
  auto result = queued.command().handler(call);
  const bool failed = !result || call.failed;
  server.command_stats.called(server.commands.number_of(queued.command()), runtime::now_ns() - began_ns, failed);
  if (!failed) return {};
  if (result) server.command_stats.error(reply.since(mark));
  if (!result) {
    const Code code = result.error().code();
    // Neither is one command's own failure.
    if (code == Code::kConflict || code == Code::kFailed || code == Code::kAborted) return result;
    reply.cut(mark);
    reply.error(error_text(result.error()));
    server.command_stats.error(reply.since(mark));
  }
  return keys.roll_back_to(savepoint);
}

Result<> Client::attempt_queue(Reply& reply, bool& refused) {
  keys.begin();
  if (planted(Bug::kWatchLookedAtTooEarly)) watches.clear();
  TRY(lock_for_queue());
  refused = !TRY(watched_unchanged());
  if (refused) {
    reply.null_array();
    keys.roll_back();
    return {};
  }
  reply.array(multi.queue.size());
  for (const QueuedCommand& queued : multi.queue) {
    TRY(run_queued(queued, reply));
    TRY(give_way());
    if (reply.overflowed())
      return Error(Code::kTooLarge, "the replies of the transaction would be too long; nothing was done");
    if (planted(Bug::kMultiInPieces)) {
      TRY(keys.commit());
      keys.begin();
    }
  }
  return keys.commit();
}

Result<> Client::run_queue(Reply& reply) {
  const std::size_t mark = reply.mark();
  const std::uint32_t db_before = db;
  const bool resp3_before = resp3;
  bool refused = false;
  auto result = with_retries(server, [&]() -> Result<> {
    reply.cut(mark);
    if (db != db_before) select(db_before);
    if (resp3 != resp3_before) set_resp3(resp3_before);
    reply.set_resp3(resp3);
    auto attempt = attempt_queue(reply, refused);
    if (!attempt && keys.in_transaction()) keys.roll_back();
    return attempt;
  });
  watches.clear();
  return result;
}

}  // namespace kelda::server
