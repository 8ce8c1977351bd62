// Where the clock's rate and the date come from. Private to kernel/.
#pragma once

#include <cstdint>
#include <optional>

namespace kelda::kernel {

// A moment on the time-stamp counter and on the PIT (counts down, 16 bits) and the local APIC timer (counts down).
struct ClockSample {
  std::uint64_t tsc = 0;
  std::uint16_t pit = 0;
  std::uint32_t apic = 0;
};
inline constexpr std::uint64_t kPitHz = 1'193'182;

void start_pit();
// The best of a few tries: the one that took least time.
ClockSample sample_clocks(bool with_apic);

// kvmclock (Linux Documentation/virt/kvm/x86/msr.rst): the counter's rate in Hz and nanoseconds since 1970 at the
// moment of the call.
struct KvmClock {
  std::uint64_t tsc_hz;
  std::int64_t wall_ns;
};
std::optional<KvmClock> read_kvm_clock();

// CPUID leaves 0x15, and 0x40000010 of hypervisors that offer it.
std::optional<std::uint64_t> tsc_hz_from_cpuid();
// Rate of the APIC timer's clock before the divider, where the hypervisor says it.
std::optional<std::uint64_t> apic_hz_from_cpuid();

// Seconds since 1970 by the CMOS clock (MC146818), UTC; nothing when there is none.
std::optional<std::int64_t> read_cmos_clock();

}  // namespace kelda::kernel
