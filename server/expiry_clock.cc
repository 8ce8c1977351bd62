#include "server/expiry_clock.h"

#include <array>
#include <ctime>

namespace kelda::server {

namespace {
constexpr std::int64_t kEarliestMs = 1'767'225'600'000;  // 2026-01-01
constexpr std::int64_t kLatestMs = 3'976'214'400'000;    // 2096-01-01
}  // namespace

bool clock_can_be_right(std::int64_t now_ms) {
  return now_ms >= kEarliestMs && now_ms < kLatestMs;
}

std::int64_t expiry_time_ms(std::int64_t now_ms) {
  return clock_can_be_right(now_ms) ? now_ms : 0;
}

std::string wrong_clock_text(std::int64_t now_ms) {
  const std::time_t seconds = now_ms / 1000;
  std::tm parts{};
  std::array<char, 64> date{};
  if (gmtime_r(&seconds, &parts) == nullptr || std::strftime(date.data(), date.size(), "%Y-%m-%d %H:%M:%S UTC", &parts) == 0) {
    return "this machine's clock gives no date: keys with a time to live are kept, none expires until it is set right";
  }
  return std::string("this machine's clock says ") + date.data() +
         ", which cannot be right: keys with a time to live are kept, none expires until it is set right";
}

}  // namespace kelda::server
