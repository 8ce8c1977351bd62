#include "kernel/time.h"

#include <atomic>

#include "kernel/apic.h"
#include "kernel/clock_sources.h"
#include "kernel/cpu_state.h"
#include "kernel/internal.h"
#include "kernel/machine.h"
#include "kernel/spinlock.h"

extern "C" std::uint64_t kelda_entry_tsc;

namespace kelda::kernel {

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
// Calibration windows: a first rough one, since guests must start fast, then better ones once the machine runs anyway.
constexpr std::uint64_t kFirstWindowPitTicks = kPitHz / 500;  // 2 ms
constexpr std::uint64_t kRefineAfterNs[] = {kSecond / 2, 10 * kSecond};

// ns = base_ns + (tsc - base_tsc) * multiplier >> kShift
constexpr unsigned kShift = 32;
struct Scale {
  std::uint64_t base_tsc = 0, base_ns = 0, multiplier = 0;
};

// Seqlock: odd while the scale is being changed. Readers retry; the fields are relaxed atomics between two fences.
constinit std::atomic<std::uint32_t> g_sequence{0};
constinit std::atomic<std::uint64_t> g_base_tsc{0}, g_base_ns{0}, g_multiplier{0};

constinit std::uint64_t g_tsc_hz = 0;
constinit std::uint64_t g_apic_hz = 0;
constinit const char* g_source = "none";
constinit bool g_deadline_timer = false;
constinit std::int64_t g_wall_base_ns = 0;

constinit ClockSample g_first_sample{};
constinit std::uint64_t g_window_begin_ns = 0;
constinit unsigned g_refinements = 0;
constinit std::atomic<std::uint64_t> g_refine_at_ns{kNoDeadline};
constinit SpinLock g_refine_lock;

std::uint64_t multiplier_for(std::uint64_t hz) {
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(kSecond) << kShift) / hz);
}

Scale read_scale() {
  for (;;) {
    std::uint32_t before = g_sequence.load(std::memory_order_acquire);
    Scale scale{g_base_tsc.load(std::memory_order_relaxed), g_base_ns.load(std::memory_order_relaxed),
                g_multiplier.load(std::memory_order_relaxed)};
    std::atomic_thread_fence(std::memory_order_acquire);
    if (!(before & 1) && g_sequence.load(std::memory_order_relaxed) == before) return scale;
    pause();
  }
}

std::uint64_t to_ns(const Scale& scale, std::uint64_t tsc) {
  // Another CPU's counter may be a few ticks behind the base.
  if (tsc <= scale.base_tsc) return scale.base_ns;
  return scale.base_ns +
         static_cast<std::uint64_t>(static_cast<unsigned __int128>(tsc - scale.base_tsc) * scale.multiplier >> kShift);
}

void write_scale(const Scale& scale) {
  g_sequence.fetch_add(1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  g_base_tsc.store(scale.base_tsc, std::memory_order_relaxed);
  g_base_ns.store(scale.base_ns, std::memory_order_relaxed);
  g_multiplier.store(scale.multiplier, std::memory_order_relaxed);
  g_sequence.fetch_add(1, std::memory_order_release);
}

void set_rate(std::uint64_t hz) {
  g_tsc_hz = hz;
  std::uint64_t now = read_tsc();
  // The time so far at the new rate for the first setting; unchanged at later ones.
  std::uint64_t so_far =
      g_multiplier.load(std::memory_order_relaxed)
          ? to_ns(read_scale(), now)
          : static_cast<std::uint64_t>(static_cast<unsigned __int128>(now - kelda_entry_tsc) * kSecond / hz);
  write_scale({now, so_far, multiplier_for(hz)});
}

void calibrate(bool want_tsc, bool want_apic) {
  constexpr std::uint32_t kLongCount = 0xffff'ffff;
  start_pit();
  use_one_shot_timer();
  if (want_apic) start_apic_timer(kLongCount);
  ClockSample begin = sample_clocks(want_apic), end;
  std::uint64_t pit_ticks;
  std::uint64_t give_up = begin.tsc + (std::uint64_t{1} << 32);  // a second or so: there is no PIT
  do {
    end = sample_clocks(want_apic);
    pit_ticks = static_cast<std::uint16_t>(begin.pit - end.pit);
  } while (pit_ticks < kFirstWindowPitTicks && end.tsc < give_up);
  if (want_apic) start_apic_timer(0);
  if (pit_ticks == 0) die_early("kelda: no clock: neither kvmclock, CPUID nor a PIT gives the rate\n");
  g_first_sample = begin;
  if (want_tsc) {
    set_rate((end.tsc - begin.tsc) * kPitHz / pit_ticks);
    g_source = "pit";
    g_refine_at_ns.store(kRefineAfterNs[0], std::memory_order_relaxed);
  }
  if (want_apic) g_apic_hz = static_cast<std::uint64_t>(begin.apic - end.apic) * kPitHz / pit_ticks * kTimerDivider;
}

// The PIT has wrapped many times since the window began, and only the rate as known so far says how often. So the
// window may be only so long that its error stays far below half a wrap (27 ms): 2 per mille at first, 50 ppm once
// refined.
bool is_window_too_long(std::uint64_t window_ns) {
  return window_ns > (g_refinements == 0 ? 10 * kSecond : 400 * kSecond);
}

void measure_again(std::uint64_t now_ns) {
  InterruptsOff off;
  ClockSample sample = sample_clocks(false);
  if (is_window_too_long(now_ns - g_window_begin_ns)) {
    g_first_sample = sample;
    g_window_begin_ns = now_ns;
    g_refine_at_ns.store(now_ns + kRefineAfterNs[0], std::memory_order_relaxed);
    return;
  }
  std::uint64_t tsc_ticks = sample.tsc - g_first_sample.tsc;
  std::uint64_t low = static_cast<std::uint16_t>(g_first_sample.pit - sample.pit);
  auto rough = static_cast<std::uint64_t>(static_cast<unsigned __int128>(tsc_ticks) * kPitHz / g_tsc_hz);
  std::uint64_t pit_ticks = low + (rough - low + 32768) / 65536 * 65536;
  set_rate(static_cast<std::uint64_t>(static_cast<unsigned __int128>(tsc_ticks) * kPitHz / pit_ticks));
  ++g_refinements;
  g_refine_at_ns.store(
      g_refinements < std::size(kRefineAfterNs) ? g_window_begin_ns + kRefineAfterNs[g_refinements] : kNoDeadline,
      std::memory_order_relaxed);
}

}  // namespace

void init_clock() {
  constexpr std::uint32_t kDeadlineFeature = 1u << 24;
  g_deadline_timer = cpuid(1).ecx & kDeadlineFeature;
  if (auto kvm = read_kvm_clock()) {
    set_rate(kvm->tsc_hz);
    g_source = "kvmclock";
    g_wall_base_ns = kvm->wall_ns - static_cast<std::int64_t>(monotonic_ns());
  } else if (auto hz = tsc_hz_from_cpuid()) {
    set_rate(*hz);
    g_source = "cpuid";
  }
  if (auto hz = apic_hz_from_cpuid()) g_apic_hz = *hz;
  bool want_tsc = g_tsc_hz == 0, want_apic = g_apic_hz == 0 && !g_deadline_timer;
  if (want_tsc || want_apic) calibrate(want_tsc, want_apic);
  if (g_wall_base_ns == 0) {
    if (auto seconds = read_cmos_clock()) {
      // Whole seconds: the middle of the second is the best guess.
      g_wall_base_ns = *seconds * static_cast<std::int64_t>(kSecond) + static_cast<std::int64_t>(kSecond / 2) -
                       static_cast<std::int64_t>(monotonic_ns());
    }
  }
}

void refine_clock() {
  std::uint64_t now = monotonic_ns();
  if (now < g_refine_at_ns.load(std::memory_order_relaxed) || !g_refine_lock.try_lock()) return;
  if (now >= g_refine_at_ns.load(std::memory_order_relaxed)) measure_again(now);
  g_refine_lock.unlock();
}

void init_timer_this_cpu() {
  if (g_deadline_timer) {
    use_tsc_deadline_timer();
  } else {
    use_one_shot_timer();
  }
}

std::uint64_t monotonic_ns() {
  return to_ns(read_scale(), read_tsc());
}

std::int64_t wall_clock_ns() {
  // A machine that is never idle refines its clock here.
  refine_clock();
  return g_wall_base_ns + static_cast<std::int64_t>(monotonic_ns());
}

void arm_timer(std::uint64_t deadline_ns) {
  InterruptsOff off;
  this_cpu().timer_deadline_ns = deadline_ns;
  std::uint64_t now = monotonic_ns();
  std::uint64_t wait_ns = deadline_ns > now ? deadline_ns - now : 0;
  constexpr std::uint64_t kLongestNs = 60 * kSecond;  // fires early and is armed again: keeps the counters in range
  if (wait_ns > kLongestNs) wait_ns = kLongestNs;
  if (g_deadline_timer) {
    auto ticks = static_cast<std::uint64_t>(static_cast<unsigned __int128>(wait_ns) * g_tsc_hz / kSecond);
    write_msr(kMsrTscDeadline, read_tsc() + ticks + 1);
    return;
  }
  auto ticks =
      static_cast<std::uint64_t>(static_cast<unsigned __int128>(wait_ns) * (g_apic_hz / kTimerDivider) / kSecond) + 1;
  constexpr std::uint64_t kLargestCount = 0xffff'ffff;
  start_apic_timer(static_cast<std::uint32_t>(ticks < kLargestCount ? ticks : kLargestCount));
}

void disarm_timer() {
  InterruptsOff off;
  this_cpu().timer_deadline_ns = kNoDeadline;
  if (g_deadline_timer) {
    write_msr(kMsrTscDeadline, 0);
  } else {
    start_apic_timer(0);
  }
}

void note_timer_fired() {
  std::uint64_t deadline = this_cpu().timer_deadline_ns;
  if (deadline == kNoDeadline) return;
  // Timer and clock have slightly different rates, and long waits fire early.
  if (monotonic_ns() < deadline) {
    arm_timer(deadline);
  } else {
    this_cpu().timer_deadline_ns = kNoDeadline;
  }
}

void delay_ns(std::uint64_t duration_ns) {
  std::uint64_t end = monotonic_ns() + duration_ns;
  while (monotonic_ns() < end) pause();
}

ClockInfo clock_info() {
  return {g_source, g_tsc_hz};
}

}  // namespace kelda::kernel
