// Linux: clocks, random, CPUs.
#include <sched.h>
#include <sys/random.h>
#include <time.h>

#include "common/assert.h"
#include "runtime/backend.h"
#include "runtime/core_hosted.h"

namespace kelda::runtime {

namespace {

std::int64_t read_clock(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}

class HostedPlatform final : public Platform {
 public:
  Result<std::unique_ptr<CoreBackend>> make_backend() override { return make_hosted_backend(); }
  TimeNs now_ns() override { return static_cast<TimeNs>(read_clock(CLOCK_MONOTONIC)); }
  std::int64_t wall_clock_us() override { return read_clock(CLOCK_REALTIME) / 1000; }

  void random_bytes(MutableBytes out) override {
    while (!out.empty()) {
      const ssize_t got = getrandom(out.data(), out.size(), 0);
      if (got > 0) out = out.subspan(static_cast<std::size_t>(got));
    }
  }

  std::uint32_t cpu_count() override {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
    return static_cast<std::uint32_t>(CPU_COUNT(&allowed));
  }

  std::uint32_t max_threads() override { return Core::kMaxCores; }
};

}  // namespace

Platform& hosted_platform() {
  static HostedPlatform platform;
  return platform;
}

}  // namespace kelda::runtime
