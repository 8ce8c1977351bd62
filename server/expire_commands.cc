// EXPIRE PEXPIRE EXPIREAT PEXPIREAT TTL PTTL EXPIRETIME PEXPIRETIME PERSIST.
#include <algorithm>

#include "server/client.h"
#include "server/expiry_options.h"
#include "server/text.h"

namespace kelda::server {

namespace {

struct ExpireConditions {
  bool if_none = false, if_some = false, if_later = false, if_sooner = false;

  bool allow(std::int64_t expire_ms, std::int64_t old_ms) const {
    const bool none = old_ms == kNoExpiry;  // counts as infinitely late
    if (if_none && !none) return false;
    if (if_some && none) return false;
    if (if_later && (none || expire_ms <= old_ms)) return false;
    return !(if_sooner && !none && expire_ms >= old_ms);
  }
};

// False: the error has been replied.
Result<bool> parse_conditions(Call& call, ExpireConditions& conditions) {
  for (std::size_t i = 3; i < call.count(); ++i) {
    TRY(call.give_way());
    if (call.is(i, "nx")) {
      conditions.if_none = true;
    } else if (call.is(i, "xx")) {
      conditions.if_some = true;
    } else if (call.is(i, "gt")) {
      conditions.if_later = true;
    } else if (call.is(i, "lt")) {
      conditions.if_sooner = true;
    } else {
      TRY(call.fail("ERR Unsupported option " + std::string(call.arg(i))));
      return false;
    }
  }
  if (conditions.if_none && (conditions.if_some || conditions.if_later || conditions.if_sooner)) {
    TRY(call.fail("ERR NX and XX, GT or LT options at the same time are not compatible"));
    return false;
  }
  if (conditions.if_later && conditions.if_sooner) {
    TRY(call.fail("ERR GT and LT options at the same time are not compatible"));
    return false;
  }
  return true;
}

Result<> expire_generic(Call& call, std::int64_t base_ms, TimeUnit unit) {
  ExpireConditions conditions;
  if (!TRY(parse_conditions(call, conditions))) return {};
  const auto number = parse_integer(call.arg(2));
  if (!number) return call.not_an_integer();
  const std::int64_t scale = unit == TimeUnit::kSeconds ? 1000 : 1;
  if (*number > (INT64_MAX - base_ms) / scale || *number < INT64_MIN / scale) return invalid_expire_time(call);
  const std::int64_t expire_ms = *number * scale + base_ms;

  StoredValue& old = call.client.value;
  const bool found = TRY(call.keys.get_for_update(call.db(), call.arg(1), old));
  if (!found || !conditions.allow(expire_ms, old.expire_ms)) {
    call.reply.integer(0);
    return {};
  }
  // A time to live of nothing needs no clock.
  if (expire_ms <= call.keys.expiry_now_ms() || (base_ms != 0 && *number <= 0)) {
    TRY(call.keys.remove(call.db(), call.arg(1)));
  } else {
    TRY(call.keys.replace(call.db(), call.arg(1), old, old.payload(), expire_ms));
  }
  call.reply.integer(1);
  return {};
}

Result<> expire(Call& call) {
  return expire_generic(call, call.keys.now_ms(), TimeUnit::kSeconds);
}
Result<> pexpire(Call& call) {
  return expire_generic(call, call.keys.now_ms(), TimeUnit::kMilliseconds);
}
Result<> expireat(Call& call) {
  return expire_generic(call, 0, TimeUnit::kSeconds);
}
Result<> pexpireat(Call& call) {
  return expire_generic(call, 0, TimeUnit::kMilliseconds);
}

// -2: no such key; -1: it does not expire.
Result<> ttl_generic(Call& call, bool relative, TimeUnit unit) {
  const StoredValue& value = call.client.value;
  if (!TRY(call.keys.get(call.db(), call.arg(1), call.client.value))) {
    call.reply.integer(-2);
    return {};
  }
  if (value.expire_ms == kNoExpiry) {
    call.reply.integer(-1);
    return {};
  }
  const std::int64_t ms = relative ? std::max<std::int64_t>(value.expire_ms - call.keys.now_ms(), 0) : value.expire_ms;
  // Rounded to the nearest second.
  call.reply.integer(unit == TimeUnit::kMilliseconds ? ms : ms / 1000 + (ms % 1000 >= 500 ? 1 : 0));
  return {};
}

Result<> ttl(Call& call) {
  return ttl_generic(call, true, TimeUnit::kSeconds);
}
Result<> pttl(Call& call) {
  return ttl_generic(call, true, TimeUnit::kMilliseconds);
}
Result<> expiretime(Call& call) {
  return ttl_generic(call, false, TimeUnit::kSeconds);
}
Result<> pexpiretime(Call& call) {
  return ttl_generic(call, false, TimeUnit::kMilliseconds);
}

Result<> persist(Call& call) {
  StoredValue& old = call.client.value;
  const bool found = TRY(call.keys.get_for_update(call.db(), call.arg(1), old));
  const bool change = found && old.expire_ms != kNoExpiry;
  if (change) TRY(call.keys.replace(call.db(), call.arg(1), old, old.payload(), kNoExpiry));
  call.reply.integer(change ? 1 : 0);
  return {};
}

constexpr std::uint32_t kWriting = kWrite | kFast | kTransaction;
constexpr std::uint32_t kReading = kReadonly | kFast;

constexpr Command kCommands[] = {
    {"expire", -3, kWriting, 1, 1, 1, expire, "generic", "1.0.0", "Let a key expire after seconds",
     "key seconds [NX|XX|GT|LT]"},
    {"pexpire", -3, kWriting, 1, 1, 1, pexpire, "generic", "2.6.0", "Let a key expire after milliseconds",
     "key milliseconds [NX|XX|GT|LT]"},
    {"expireat", -3, kWriting, 1, 1, 1, expireat, "generic", "1.2.0", "Let a key expire at a second of Unix time",
     "key unix-time-seconds [NX|XX|GT|LT]"},
    {"pexpireat", -3, kWriting, 1, 1, 1, pexpireat, "generic", "2.6.0",
     "Let a key expire at a millisecond of Unix time", "key unix-time-milliseconds [NX|XX|GT|LT]"},
    {"ttl", 2, kReading, 1, 1, 1, ttl, "generic", "1.0.0", "Seconds until a key expires", "key"},
    {"pttl", 2, kReading, 1, 1, 1, pttl, "generic", "2.6.0", "Milliseconds until a key expires", "key"},
    {"expiretime", 2, kReading, 1, 1, 1, expiretime, "generic", "7.0.0",
     "The second of Unix time at which a key expires", "key"},
    {"pexpiretime", 2, kReading, 1, 1, 1, pexpiretime, "generic", "7.0.0",
     "The millisecond of Unix time at which a key expires", "key"},
    {"persist", 2, kWriting, 1, 1, 1, persist, "generic", "2.2.0", "Let a key not expire", "key"},
};

}  // namespace

std::span<const Command> expire_commands() {
  return kCommands;
}

}  // namespace kelda::server
