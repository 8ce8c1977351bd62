// MULTI EXEC DISCARD WATCH UNWATCH.
#include "common/planted_bug.h"
#include "server/client.h"

namespace kelda::server {

namespace {

Result<> multi(Call& call) {
  if (call.client.multi.open) return call.fail("ERR MULTI calls can not be nested");
  call.client.multi.open = true;
  call.client.info->queued.store(0, std::memory_order_relaxed);
  call.reply.ok();
  return {};
}

void unwatch_all(Client& client) {
  client.watches.clear();
  client.info->watched.store(0, std::memory_order_relaxed);
}

Result<> discard(Call& call) {
  if (!call.client.multi.open) return call.fail("ERR DISCARD without MULTI");
  call.client.end_multi();
  unwatch_all(call.client);
  call.reply.ok();
  return {};
}

Result<> exec(Call& call) {
  Client& client = call.client;
  if (!client.multi.open) return call.fail("ERR EXEC without MULTI");
  const bool spoiled = client.multi.spoiled;
  const std::size_t mark = call.reply.mark();
  // A change that was seen already needs no transaction to be sure of.
  if (spoiled) {
    call.reply.error("EXECABORT Transaction discarded because of previous errors.");
  } else if (client.watches.changed() && !planted(Bug::kExecIgnoresWatch)) {
    call.reply.null_array();
  } else if (auto done = client.run_queue(call.reply); !done) {
    call.reply.cut(mark);
    call.reply.error(error_text(done.error()));
  }
  client.end_multi();
  unwatch_all(client);
  return {};
}

Result<> watch(Call& call) {
  Client& client = call.client;
  if (client.multi.open) return call.fail("ERR WATCH inside MULTI is not allowed");
  for (const std::string_view key : call.args.subspan(1)) {
    if (key.size() > kMaxKeyBytes) continue;  // can never change
    if (client.watches.contains(call.db(), key)) continue;
    if (client.watches.bytes() + WatchSet::bytes_of(key) > client.parser_limits().max_request_bytes) {
      return call.fail("ERR too many watched keys: they would take more memory than one client may (CONFIG GET "
                       "client-query-buffer-limit)");
    }
    client.watches.add(call.db(), key);
    TRY(call.give_way());
    // Waits for a write that is under way (watch.h).
    bool expired = false;
    TRY(with_retries(call.server, [&]() -> Result<> {
      call.keys.begin();
      auto locked = call.keys.lock_watched(call.db(), key, expired);
      call.keys.roll_back();
      if (!locked) return locked.error();
      return {};
    }));
    if (expired) client.watches.set_was_expired(call.db(), key);
  }
  client.info->watched.store(static_cast<std::uint32_t>(client.watches.keys().size()), std::memory_order_relaxed);
  call.reply.ok();
  return {};
}

Result<> unwatch(Call& call) {
  // Inside EXEC the watches are over when the commands run.
  if (!call.client.multi.open) unwatch_all(call.client);
  call.reply.ok();
  return {};
}

constexpr Command kCommands[] = {
    {"multi", 1, kFast | kImmediate, 0, 0, 0, multi, "transactions", "1.2.0",
     "Begin a transaction: the commands that follow are kept", ""},
    {"exec", 1, kImmediate, 0, 0, 0, exec, "transactions", "1.2.0", "Carry out the kept commands, all or none", ""},
    {"discard", 1, kFast | kImmediate, 0, 0, 0, discard, "transactions", "2.0.0", "Forget the kept commands", ""},
    {"watch", -2, kFast | kImmediate, 1, -1, 1, watch, "transactions", "2.2.0",
     "Let EXEC refuse if one of the keys changes before it", "key [key ...]"},
    {"unwatch", 1, kFast, 0, 0, 0, unwatch, "transactions", "2.2.0", "Watch no key any more", ""},
};

}  // namespace

std::span<const Command> transaction_commands() {
  return kCommands;
}

}  // namespace kelda::server
