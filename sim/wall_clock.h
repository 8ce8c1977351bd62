// What the simulated wall clock has shown: expiries may only be judged by it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/core.h"

namespace kelda::sim {

class WallClock {
 public:
  static std::int64_t now_ms() { return runtime::wall_clock_us() / 1000; }

  // Around shift_wall_clock().
  void jumped(std::int64_t before_ms, std::int64_t after_ms) {
    jumps_.push_back({runtime::now_ns(), before_ms, after_ms});
  }

  struct Range {
    std::int64_t low_ms, high_ms;
  };
  // All that it showed from then, when it showed `then_ms`, until now.
  Range since(runtime::TimeNs then_ns, std::int64_t then_ms) const {
    Range range{std::min(then_ms, now_ms()), std::max(then_ms, now_ms())};
    for (auto jump = jumps_.rbegin(); jump != jumps_.rend() && jump->at_ns >= then_ns; ++jump) {
      range.low_ms = std::min({range.low_ms, jump->before_ms, jump->after_ms});
      range.high_ms = std::max({range.high_ms, jump->before_ms, jump->after_ms});
    }
    return range;
  }

 private:
  struct Jump {
    runtime::TimeNs at_ns;
    std::int64_t before_ms, after_ms;
  };
  std::vector<Jump> jumps_;
};

}  // namespace kelda::sim
