// The one place where hosted or bare is chosen, and the clock and random calls that follow the choice.
#include "runtime/backend.h"
#include "runtime/platform_bare.h"

namespace kelda::runtime {

namespace {
// A simulated core brings its own platform.
Platform& current_platform() {
  Core* core = Core::current_or_null();
  return core != nullptr ? core->platform() : process_platform();
}
}  // namespace

Platform& process_platform() {
  static Platform& chosen = is_bare() ? bare_platform() : hosted_platform();
  return chosen;
}

TimeNs now_ns() { return current_platform().now_ns(); }
std::int64_t wall_clock_us() { return current_platform().wall_clock_us(); }
void random_bytes(MutableBytes out) { current_platform().random_bytes(out); }

std::uint64_t random_u64() {
  std::uint64_t value;
  random_bytes({reinterpret_cast<std::byte*>(&value), sizeof value});
  return value;
}

}  // namespace kelda::runtime
