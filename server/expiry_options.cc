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
  struct Word {
    std::string_view text;
    TimeUnit unit;
    bool absolute;
  };
  constexpr Word kWords[] = {{"ex", TimeUnit::kSeconds, false},
                             {"px", TimeUnit::kMilliseconds, false},
                             {"exat", TimeUnit::kSeconds, true},
                             {"pxat", TimeUnit::kMilliseconds, true}};
  if (i + 1 >= call.count()) return false;
  for (const Word& word : kWords) {
    if (!call.is(i, word.text)) continue;
    if (given && (unit_ != word.unit || absolute_ != word.absolute)) return false;
    set(call.arg(i + 1), word.unit, word.absolute);
    return true;
  }
  return false;
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
