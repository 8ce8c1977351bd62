// Clocks and the one-shot timer.
//
// Contract: all CPUs agree on monotonic_ns() (the time-stamp counters are synchronous under every hypervisor that is
// supported). Its rate comes from kvmclock or CPUID where they give it, else from a short calibration against the PIT,
// which is refined once the machine has run for a while; refining never makes the clock jump.
#pragma once

#include <cstdint>

namespace kelda::kernel {

// Nanoseconds since the boot CPU entered the kernel. Never goes back. Any context.
std::uint64_t monotonic_ns();
// Nanoseconds since 1970-01-01 UTC: kvmclock, else the CMOS clock as read at boot (right to half a second), plus
// monotonic_ns().
std::int64_t wall_clock_ns();

// Arms this CPU's timer: an interrupt (and so a wake-up) at `deadline_ns` of monotonic_ns(), or at once if that is
// past. There is one deadline a CPU; the last call counts. halt_until_interrupt_or() arms it itself.
void arm_timer(std::uint64_t deadline_ns);
void disarm_timer();

// Busy-waits; for device resets and the like.
void delay_ns(std::uint64_t duration_ns);

struct ClockInfo {
  const char* source;  // "kvmclock", "cpuid" or "pit"
  std::uint64_t tsc_hz;
};
ClockInfo clock_info();

}  // namespace kelda::kernel
