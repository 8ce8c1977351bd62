#include "server/expiry_options.h"

#include "server/text.h"

namespace kelda::server {

Result<> invalid_expire_time(Call& call) {
  return call.fail("ERR invalid expire time in '" + std::string(call.command.name) + "' command");
}

void ExpiryOption::set(std::string_view number, TimeUnit time_unit, bool is_absolute) {
  given = true;
  text_ = number;
  unit_ = time_unit;
  absolute_ = is_absolute;
}

bool ExpiryOption::parse(Call& call, std::size_t i) {
  if (i + 1 >= call.count()) return false;
  if (call.is(i, "ex")) set(call.arg(i + 1), TimeUnit::kSeconds, false);
  if (call.is(i, "px")) set(call.arg(i + 1), TimeUnit::kMilliseconds, false);
  if (call.is(i, "exat")) set(call.arg(i + 1), TimeUnit::kSeconds, true);
  if (call.is(i, "pxat")) set(call.arg(i + 1), TimeUnit::kMilliseconds, true);
  return given;
}

Result<bool> ExpiryOption::resolve(Call& call) {
  if (!given) return true;
  const auto number = parse_integer(text_);
  if (!number) {
    TRY(call.not_an_integer());
    return false;
  }
  const std::int64_t base = absolute_ ? 0 : call.keys.now_ms();
  const std::int64_t scale = unit_ == TimeUnit::kSeconds ? 1000 : 1;
  if (*number <= 0 || *number > (INT64_MAX - base) / scale) {
    TRY(invalid_expire_time(call));
    return false;
  }
  expire_ms = *number * scale + base;
  return true;
}

}  // namespace kelda::server
