// GET SET SETNX SETEX PSETEX GETSET GETDEL GETEX MGET MSET MSETNX.
#include <algorithm>
#include <vector>

#include "server/client.h"
#include "server/expiry_options.h"

namespace kelda::server {

namespace {

Result<> get(Call& call) {
  if (!TRY(call.keys.get(call.db(), call.arg(1), call.client.value))) {
    call.server.stats.add(Counter::kMisses);
    call.reply.null();
    return {};
  }
  call.server.stats.add(Counter::kHits);
  call.reply.bulk(call.client.value.payload());
  return {};
}

struct SetOptions {
  bool if_absent = false, if_present = false, keep_ttl = false, get_old = false;
  ExpiryOption expiry;
};

// False: the error has been replied.
Result<bool> parse_set_options(Call& call, SetOptions& options) {
  for (std::size_t i = 3; i < call.count(); ++i) {
    TRY(call.give_way());
    if (call.is(i, "nx") && !options.if_present) {
      options.if_absent = true;
    } else if (call.is(i, "xx") && !options.if_absent) {
      options.if_present = true;
    } else if (call.is(i, "get")) {
      options.get_old = true;
    } else if (call.is(i, "keepttl") && !options.expiry.given) {
      options.keep_ttl = true;
    } else if (!options.keep_ttl && options.expiry.parse(call, i)) {
      ++i;
    } else {
      TRY(call.syntax_error());
      return false;
    }
  }
  return options.expiry.resolve(call);
}

Result<> set(Call& call) {
  const std::string_view key = call.arg(1), payload = call.arg(2);
  SetOptions options;
  if (call.count() > 3 && !TRY(parse_set_options(call, options))) return {};
  std::int64_t expire_ms = options.expiry.expire_ms;
  if (!options.if_absent && !options.if_present && !options.get_old && !options.keep_ttl) {
    TRY(call.keys.put(call.db(), key, payload, expire_ms));
    call.reply.ok();
    return {};
  }
  StoredValue& old = call.client.value;
  const bool found = TRY(call.keys.get_for_update(call.db(), key, old));
  const bool refused = (options.if_absent && found) || (options.if_present && !found);
  if (options.get_old) {
    found ? call.reply.bulk(old.payload()) : call.reply.null();
  } else {
    refused ? call.reply.null() : call.reply.ok();
  }
  if (refused) return {};
  if (!found) return call.keys.put(call.db(), key, payload, expire_ms);
  return call.keys.replace(call.db(), key, old, payload, options.keep_ttl ? old.expire_ms : expire_ms);
}

Result<> setnx(Call& call) {
  call.reply.integer(TRY(call.keys.put_if_absent(call.db(), call.arg(1), call.arg(2))) ? 1 : 0);
  return {};
}

Result<> set_with_expiry(Call& call, TimeUnit unit) {
  ExpiryOption expiry;
  expiry.set(call.arg(2), unit, /*absolute=*/false);
  if (!TRY(expiry.resolve(call))) return {};
  TRY(call.keys.put(call.db(), call.arg(1), call.arg(3), expiry.expire_ms));
  call.reply.ok();
  return {};
}

Result<> setex(Call& call) {
  return set_with_expiry(call, TimeUnit::kSeconds);
}
Result<> psetex(Call& call) {
  return set_with_expiry(call, TimeUnit::kMilliseconds);
}

Result<> getset(Call& call) {
  StoredValue& old = call.client.value;
  if (!TRY(call.keys.get_for_update(call.db(), call.arg(1), old))) {
    call.reply.null();
    return call.keys.put(call.db(), call.arg(1), call.arg(2));
  }
  call.reply.bulk(old.payload());
  return call.keys.replace(call.db(), call.arg(1), old, call.arg(2), kNoExpiry);
}

Result<> getdel(Call& call) {
  if (!TRY(call.keys.get_for_update(call.db(), call.arg(1), call.client.value))) {
    call.reply.null();
    return {};
  }
  call.reply.bulk(call.client.value.payload());
  TRY(call.keys.remove(call.db(), call.arg(1)));
  return {};
}

Result<> getex(Call& call) {
  bool persist = false;
  ExpiryOption expiry;
  for (std::size_t i = 2; i < call.count(); ++i) {
    TRY(call.give_way());
    if (call.is(i, "persist") && !expiry.given) {
      persist = true;
    } else if (!persist && expiry.parse(call, i)) {
      ++i;
    } else {
      return call.syntax_error();
    }
  }
  StoredValue& old = call.client.value;
  // The key is looked up before the number is: an absent key hides a wrong one.
  if (!TRY(call.keys.get_for_update(call.db(), call.arg(1), old))) {
    call.reply.null();
    return {};
  }
  if (!TRY(expiry.resolve(call))) return {};
  call.reply.bulk(old.payload());
  if (expiry.given && expiry.expire_ms <= call.keys.expiry_now_ms()) {
    TRY(call.keys.remove(call.db(), call.arg(1)));
    return {};
  }
  if (!expiry.given && (!persist || old.expire_ms == kNoExpiry)) return {};
  return call.keys.replace(call.db(), call.arg(1), old, old.payload(), expiry.expire_ms);
}

Result<> mget(Call& call) {
  call.reply.array(call.count() - 1);
  for (const std::string_view key : call.args.subspan(1)) {
    if (call.reply.overflowed()) return {};
    const bool found = TRY(call.keys.get(call.db(), key, call.client.value));
    call.server.stats.add(found ? Counter::kHits : Counter::kMisses);
    found ? call.reply.bulk(call.client.value.payload()) : call.reply.null();
    TRY(call.give_way());
  }
  return {};
}

std::vector<std::string_view> every_second(Call& call) {
  std::vector<std::string_view> keys;
  for (std::size_t i = 1; i < call.count(); i += 2) keys.push_back(call.arg(i));
  return keys;
}

// Later pairs win, as they would one after the other.
Result<> put_pairs(Call& call) {
  for (std::size_t i = 1; i < call.count(); i += 2) {
    TRY(call.keys.put(call.db(), call.arg(i), call.arg(i + 1)));
    TRY(call.give_way());
  }
  return {};
}

Result<> mset(Call& call) {
  if (call.count() % 2 == 0) return call.wrong_arguments();
  if (call.count() > 3) TRY(call.keys.lock(call.db(), every_second(call)));
  TRY(put_pairs(call));
  call.reply.ok();
  return {};
}

Result<> msetnx(Call& call) {
  if (call.count() % 2 == 0) return call.wrong_arguments();
  const auto keys = every_second(call);
  TRY(call.keys.lock(call.db(), keys));
  for (const std::string_view key : keys) {
    TRY(call.give_way());
    if (TRY(call.keys.exists(call.db(), key))) {
      call.reply.integer(0);
      return {};
    }
  }
  TRY(put_pairs(call));
  call.reply.integer(1);
  return {};
}

constexpr std::uint32_t kWriting = kWrite | kTransaction;

constexpr Command kCommands[] = {
    {"get", 2, kReadonly | kFast, 1, 1, 1, get, "string", "1.0.0", "Read a value", "key"},
    {"set", -3, kWriting, 1, 1, 1, set, "string", "1.0.0", "Write a value, with conditions and an expiry if wanted",
     "key value [NX|XX] [GET] [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-milliseconds|KEEPTTL]"},
    {"setnx", 3, kWriting | kFast, 1, 1, 1, setnx, "string", "1.0.0", "Write a value if the key is absent",
     "key value"},
    {"setex", 4, kWriting, 1, 1, 1, setex, "string", "2.0.0", "Write a value that expires after seconds",
     "key seconds value"},
    {"psetex", 4, kWriting, 1, 1, 1, psetex, "string", "2.6.0", "Write a value that expires after milliseconds",
     "key milliseconds value"},
    {"getset", 3, kWriting | kFast, 1, 1, 1, getset, "string", "1.0.0", "Write a value and answer the one before",
     "key value"},
    {"getdel", 2, kWriting | kFast, 1, 1, 1, getdel, "string", "6.2.0", "Read a value and remove the key", "key"},
    {"getex", -2, kWriting | kFast, 1, 1, 1, getex, "string", "6.2.0", "Read a value and change when it expires",
     "key [EX seconds|PX milliseconds|EXAT unix-time-seconds|PXAT unix-time-milliseconds|PERSIST]"},
    {"mget", -2, kReadonly | kFast | kAtomicRead, 1, -1, 1, mget, "string", "1.0.0",
     "Read several values at one moment", "key [key ...]"},
    {"mset", -3, kWriting, 1, -1, 2, mset, "string", "1.0.1", "Write several values in one transaction",
     "key value [key value ...]"},
    {"msetnx", -3, kWriting, 1, -1, 2, msetnx, "string", "1.0.1",
     "Write several values if all of their keys are absent", "key value [key value ...]"},
};

}  // namespace

std::span<const Command> string_commands() {
  return kCommands;
}

}  // namespace kelda::server
