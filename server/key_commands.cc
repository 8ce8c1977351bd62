// DEL UNLINK EXISTS TYPE TOUCH RENAME RENAMENX COPY DBSIZE FLUSHDB FLUSHALL.
#include <algorithm>
#include <array>

#include "server/client.h"
#include "server/command_keys.h"
#include "server/text.h"

namespace kelda::server {

namespace {

Result<> del(Call& call) {
  const Arguments keys = call.args.subspan(1);
  if (keys.size() > 1) TRY(call.keys.lock(call.db(), keys));
  std::int64_t removed = 0;
  for (const std::string_view key : keys) {
    removed += TRY(call.keys.remove(call.db(), key)) ? 1 : 0;
    TRY(call.give_way());
  }
  call.reply.integer(removed);
  return {};
}

Result<> exists(Call& call) {
  std::int64_t found = 0;
  for (const std::string_view key : call.args.subspan(1)) {
    found += TRY(call.keys.exists(call.db(), key)) ? 1 : 0;
    TRY(call.give_way());
  }
  call.reply.integer(found);
  return {};
}

Result<> type(Call& call) {
  call.reply.simple(TRY(call.keys.exists(call.db(), call.arg(1))) ? "string" : "none");
  return {};
}

// The value of `from` in database `db` goes to `to` in `to_db`, with its expiry.
Result<> put_copy(Call& call, std::uint32_t to_db, std::string_view to, const StoredValue& copied) {
  return call.keys.put(to_db, to, copied.payload(), copied.expire_ms);
}

Result<bool> rename_key(Call& call, bool replace) {
  const std::array<std::string_view, 2> names{call.arg(1), call.arg(2)};
  TRY(call.keys.lock(call.db(), names));
  StoredValue& value = call.client.value;
  if (!TRY(call.keys.get_for_update(call.db(), names[0], value))) {
    TRY(call.fail("ERR no such key"));
    return false;
  }
  if (names[0] == names[1]) return replace;
  if (!replace && TRY(call.keys.exists(call.db(), names[1]))) return false;
  TRY(put_copy(call, call.db(), names[1], value));
  TRY(call.keys.remove(call.db(), names[0]));
  return true;
}

Result<> rename(Call& call) {
  TRY(rename_key(call, true));
  if (!call.failed) call.reply.ok();
  return {};
}

Result<> renamenx(Call& call) {
  const bool renamed = TRY(rename_key(call, false));
  if (!call.failed) call.reply.integer(renamed ? 1 : 0);
  return {};
}

Result<> copy(Call& call) {
  std::uint32_t to_db = call.db();
  bool replace = false;
  for (std::size_t i = 3; i < call.count(); ++i) {
    TRY(call.give_way());
    if (call.is(i, "replace")) {
      replace = true;
    } else if (call.is(i, "db") && i + 1 < call.count()) {
      const std::string_view number = call.arg(++i);
      if (!parse_integer(number)) return call.not_an_integer();
      const auto index = database_index(number);
      if (!index) return call.fail("ERR DB index is out of range");
      to_db = *index;
    } else {
      return call.syntax_error();
    }
  }
  const std::string_view from = call.arg(1), to = call.arg(2);
  if (from == to && to_db == call.db()) return call.fail("ERR source and destination objects are the same");
  if (to_db == call.db()) {
    const std::array<std::string_view, 2> names{from, to};
    TRY(call.keys.lock(to_db, names));
  }
  StoredValue& value = call.client.value;
  const bool possible = TRY(call.keys.get_for_update(call.db(), from, value)) &&
                        (!TRY(call.keys.get_for_update(to_db, to, call.client.other_value)) || replace);
  if (possible) TRY(put_copy(call, to_db, to, value));
  call.reply.integer(possible ? 1 : 0);
  return {};
}

Result<> dbsize(Call& call) {
  call.reply.integer(static_cast<std::int64_t>(call.server.keyspace.key_count(call.db())));
  return {};
}

// ASYNC and SYNC are the same here: emptying a tree is constant time, its pages are reclaimed in the background.
bool flush_mode_valid(Call& call) {
  return call.count() == 1 || (call.count() == 2 && (call.is(1, "async") || call.is(1, "sync")));
}

Result<> flushdb(Call& call) {
  if (!flush_mode_valid(call)) return call.syntax_error();
  TRY(call.keys.clear(call.db()));
  call.reply.ok();
  return {};
}

Result<> flushall(Call& call) {
  if (!flush_mode_valid(call)) return call.syntax_error();
  for (std::uint32_t db = 0; db < kDatabaseCount; ++db) TRY(call.keys.clear(db));
  call.reply.ok();
  return {};
}

constexpr std::uint32_t kWriting = kWrite | kTransaction;

constexpr Command kCommands[] = {
    {"del", -2, kWriting, 1, -1, 1, del, "generic", "1.0.0", "Remove keys", "key [key ...]"},
    {"unlink", -2, kWriting | kFast, 1, -1, 1, del, "generic", "4.0.0", "Remove keys (the same as DEL here)",
     "key [key ...]"},
    {"exists", -2, kReadonly | kFast | kAtomicRead, 1, -1, 1, exists, "generic", "1.0.0",
     "How many of the keys there are", "key [key ...]"},
    {"touch", -2, kReadonly | kFast | kAtomicRead, 1, -1, 1, exists, "generic", "3.2.1",
     "How many of the keys there are (no use of keys is recorded here)", "key [key ...]"},
    {"type", 2, kReadonly | kFast, 1, 1, 1, type, "generic", "1.0.0", "What kind of value a key holds", "key"},
    {"rename", 3, kWriting, 1, 2, 1, rename, "generic", "1.0.0", "Give a value another key", "key newkey"},
    {"renamenx", 3, kWriting | kFast, 1, 2, 1, renamenx, "generic", "1.0.0",
     "Give a value another key if that is absent", "key newkey"},
    {"copy", -3, kWriting, 1, 2, 1, copy, "generic", "6.2.0",
     "Write the value of one key to another, also of another database",
     "source destination [DB destination-db] [REPLACE]"},
    {"dbsize", 1, kReadonly | kFast, 0, 0, 0, dbsize, "server", "1.0.0", "How many keys the database holds", ""},
    {"flushdb", -1, kWriting | kWholeTree, 0, 0, 0, flushdb, "server", "1.0.0", "Empty the database", "[ASYNC|SYNC]"},
    {"flushall", -1, kWriting | kWholeTree, 0, 0, 0, flushall, "server", "1.0.0", "Empty all databases",
     "[ASYNC|SYNC]"},
};

}  // namespace

std::span<const Command> key_commands() {
  return kCommands;
}

}  // namespace kelda::server
