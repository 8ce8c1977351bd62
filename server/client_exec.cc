// EXEC: the queued commands in one transaction. A command that fails for the user's fault reports its error and is
// undone alone (a savepoint); one that meets a conflict makes the whole start again.
#include <algorithm>

#include "server/client.h"
#include "server/command_keys.h"

namespace kelda::server {

Result<> Client::lock_for_queue() {
  // Every key is locked first, in one order for all clients, so that two EXECs never wait for each other in a circle.
  // Commands that walk a whole tree take their lock when they come to it.
  std::vector<std::vector<std::string_view>> by_db(kDatabaseCount);
  for (const WatchSet::Key& watched : watches.keys()) by_db[watched.db].push_back(watched.key);
  std::uint32_t current = db;
  bool wants_keys = !watches.keys().empty();
  for (const QueuedCommand& queued : multi.queue) {
    const auto args = queued.args();
    if (queued.command().name == "select") current = database_index(args[1]).value_or(current);
    if ((queued.command().flags & kWrite) == 0) continue;
    for (const std::string_view key : keys_of(queued.command(), args)) {
      // A key that is too long fails in its own command.
      if (key.size() <= kMaxKeyBytes) by_db[current].push_back(key);
      wants_keys = true;
    }
  }
  if (!wants_keys) return {};
  for (std::uint32_t index = 0; index < kDatabaseCount; ++index) {
    if (!by_db[index].empty()) TRY(keys.lock(index, by_db[index]));
  }
  return {};
}

Result<bool> Client::watched_unchanged() {
  for (const WatchSet::Key& watched : watches.keys()) {
    bool expired = false;
    TRY(keys.lock_watched(watched.db, watched.key, expired));
    if (expired && !watched.was_expired) return false;
  }
  return !watches.changed();
}

Result<> Client::run_queued(const QueuedCommand& queued, Reply& reply) {
  const KeyAccess::Savepoint savepoint = TRY(keys.savepoint());
  const auto args = queued.args();
  const std::size_t mark = reply.mark();
  // CLIENT and HELLO may have changed it.
  reply.set_resp3(resp3);
  Call call{*this, server, queued.command(), args, reply, keys};
  auto result = queued.command().handler(call);
  if (result && !call.failed) return {};
  if (!result) {
    const Code code = result.error().code();
    // Neither is one command's own failure.
    if (code == Code::kConflict || code == Code::kFailed || code == Code::kAborted) return result;
    reply.cut(mark);
    reply.error(error_text(result.error()));
  }
  return keys.roll_back_to(savepoint);
}

Result<> Client::attempt_queue(Reply& reply, bool& refused) {
  keys.begin();
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
    if (reply.overflowed())
      return Error(Code::kTooLarge, "the replies of the transaction would be too long; nothing was done");
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
