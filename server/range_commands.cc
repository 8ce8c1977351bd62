// APPEND STRLEN GETRANGE SUBSTR SETRANGE: parts of values.
#include <algorithm>

#include "server/client.h"
#include "server/text.h"

namespace kelda::server {

namespace {

Result<> value_too_large(Call& call, std::uint64_t bytes) {
  return call.fail("ERR value is too large (" + std::to_string(bytes) + " bytes; the limit is " +
                   std::to_string(kMaxValueBytes) + ")");
}

Result<> append(Call& call) {
  StoredValue& old = call.client.value;
  const std::string_view more = call.arg(2);
  if (!TRY(call.keys.get_for_update(call.db(), call.arg(1), old))) {
    TRY(call.keys.put(call.db(), call.arg(1), more));
    call.reply.integer(static_cast<std::int64_t>(more.size()));
    return {};
  }
  std::string& text = call.client.text;
  text.assign(old.payload());
  text.append(more);
  if (text.size() > kMaxValueBytes) return value_too_large(call, text.size());
  TRY(call.keys.replace(call.db(), call.arg(1), old, text, old.expire_ms));
  call.reply.integer(static_cast<std::int64_t>(text.size()));
  return {};
}

Result<> strlen_(Call& call) {
  const bool found = TRY(call.keys.get(call.db(), call.arg(1), call.client.value));
  call.reply.integer(found ? static_cast<std::int64_t>(call.client.value.payload().size()) : 0);
  return {};
}

Result<> getrange(Call& call) {
  const auto first = parse_integer(call.arg(2)), last = parse_integer(call.arg(3));
  if (!first || !last) return call.not_an_integer();
  const bool found = TRY(call.keys.get(call.db(), call.arg(1), call.client.value));
  const std::string_view payload = found ? call.client.value.payload() : std::string_view();
  const auto length = static_cast<std::int64_t>(payload.size());
  std::int64_t start = *first, end = *last;
  // Negative: from the end. Both negative and crossed is empty whatever the length.
  const bool crossed = start < 0 && end < 0 && start > end;
  if (start < 0) start = std::max<std::int64_t>(start + length, 0);
  if (end < 0) end = std::max<std::int64_t>(end + length, 0);
  end = std::min(end, length - 1);
  if (crossed || length == 0 || start > end) {
    call.reply.bulk("");
    return {};
  }
  call.reply.bulk(payload.substr(static_cast<std::size_t>(start), static_cast<std::size_t>(end - start + 1)));
  return {};
}

Result<> setrange(Call& call) {
  const auto offset = parse_integer(call.arg(2));
  if (!offset) return call.not_an_integer();
  if (*offset < 0) return call.fail("ERR offset is out of range");
  const std::string_view piece = call.arg(3);
  StoredValue& old = call.client.value;
  const bool found = TRY(call.keys.get_for_update(call.db(), call.arg(1), old));
  if (piece.empty()) {
    call.reply.integer(found ? static_cast<std::int64_t>(old.payload().size()) : 0);
    return {};
  }
  const auto start = static_cast<std::uint64_t>(*offset);
  if (start + piece.size() > kMaxValueBytes) return value_too_large(call, start + piece.size());
  std::string& text = call.client.text;
  text.assign(found ? old.payload() : std::string_view());
  if (text.size() < start + piece.size()) text.resize(start + piece.size(), '\0');
  text.replace(start, piece.size(), piece);
  if (found) {
    TRY(call.keys.replace(call.db(), call.arg(1), old, text, old.expire_ms));
  } else {
    TRY(call.keys.put(call.db(), call.arg(1), text));
  }
  call.reply.integer(static_cast<std::int64_t>(text.size()));
  return {};
}

constexpr Command kCommands[] = {
    {"append", 3, kWrite | kFast | kTransaction, 1, 1, 1, append, "string", "2.0.0", "Lengthen a value", "key value"},
    {"strlen", 2, kReadonly | kFast, 1, 1, 1, strlen_, "string", "2.2.0", "How many bytes a value has", "key"},
    {"getrange", 4, kReadonly, 1, 1, 1, getrange, "string", "2.4.0", "Read part of a value", "key start end"},
    {"substr", 4, kReadonly, 1, 1, 1, getrange, "string", "1.0.0", "Read part of a value (the old name of GETRANGE)",
     "key start end"},
    {"setrange", 4, kWrite | kTransaction, 1, 1, 1, setrange, "string", "2.2.0", "Overwrite part of a value",
     "key offset value"},
};

}  // namespace

std::span<const Command> range_commands() {
  return kCommands;
}

}  // namespace kelda::server
