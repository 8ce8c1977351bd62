// INCR DECR INCRBY DECRBY INCRBYFLOAT.
#include <charconv>
#include <cmath>

#include "server/client.h"
#include "server/text.h"

namespace kelda::server {

namespace {

Result<> add(Call& call, std::int64_t amount) {
  StoredValue& old = call.client.value;
  const bool found = TRY(call.keys.get_for_update(call.db(), call.arg(1), old));
  std::int64_t number = 0;
  if (found) {
    const auto parsed = parse_integer(old.payload());
    if (!parsed) return call.not_an_integer();
    number = *parsed;
  }
  if (__builtin_add_overflow(number, amount, &number)) return call.fail("ERR increment or decrement would overflow");
  char digits[24];
  const char* end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  const std::string_view payload(digits, static_cast<std::size_t>(end - digits));
  if (found) {
    TRY(call.keys.replace(call.db(), call.arg(1), old, payload, old.expire_ms));
  } else {
    TRY(call.keys.put(call.db(), call.arg(1), payload));
  }
  call.reply.integer(number);
  return {};
}

Result<> incr(Call& call) {
  return add(call, 1);
}
Result<> decr(Call& call) {
  return add(call, -1);
}

Result<> incrby(Call& call) {
  const auto amount = parse_integer(call.arg(2));
  return amount ? add(call, *amount) : call.not_an_integer();
}

Result<> decrby(Call& call) {
  const auto amount = parse_integer(call.arg(2));
  if (!amount) return call.not_an_integer();
  if (*amount == INT64_MIN) return call.fail("ERR decrement would overflow");
  return add(call, -*amount);
}

Result<> incrbyfloat(Call& call) {
  constexpr std::string_view kNotAFloat = "ERR value is not a valid float";
  StoredValue& old = call.client.value;
  const bool found = TRY(call.keys.get_for_update(call.db(), call.arg(1), old));
  long double number = 0;
  if (found) {
    const auto parsed = parse_long_double(old.payload());
    if (!parsed) return call.fail(kNotAFloat);
    number = *parsed;
  }
  const auto amount = parse_long_double(call.arg(2));
  if (!amount) return call.fail(kNotAFloat);
  number += *amount;
  if (std::isnan(number) || std::isinf(number)) return call.fail("ERR increment would produce NaN or Infinity");
  const std::string payload = format_long_double(number);
  if (found) {
    TRY(call.keys.replace(call.db(), call.arg(1), old, payload, old.expire_ms));
  } else {
    TRY(call.keys.put(call.db(), call.arg(1), payload));
  }
  call.reply.bulk(payload);
  return {};
}

constexpr std::uint32_t kFlags = kWrite | kFast | kTransaction;

constexpr Command kCommands[] = {
    {"incr", 2, kFlags, 1, 1, 1, incr, "string", "1.0.0", "Add one to an integer", "key"},
    {"decr", 2, kFlags, 1, 1, 1, decr, "string", "1.0.0", "Take one from an integer", "key"},
    {"incrby", 3, kFlags, 1, 1, 1, incrby, "string", "1.0.0", "Add to an integer", "key increment"},
    {"decrby", 3, kFlags, 1, 1, 1, decrby, "string", "1.0.0", "Take from an integer", "key decrement"},
    {"incrbyfloat", 3, kFlags, 1, 1, 1, incrbyfloat, "string", "2.6.0", "Add to a decimal number", "key increment"},
};

}  // namespace

std::span<const Command> number_commands() {
  return kCommands;
}

}  // namespace kelda::server
