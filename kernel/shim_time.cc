// Clocks and sleeping.
#include <errno.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/times.h>
#include <time.h>

#include <cstring>

#include "kernel/cpu.h"
#include "kernel/shim.h"
#include "kernel/shim_threads.h"
#include "kernel/time.h"

namespace kelda::kernel {

namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

timespec to_timespec(std::int64_t ns) {
  return {ns / kSecond, ns % kSecond};
}
timeval to_timeval(std::int64_t ns) {
  return {ns / kSecond, ns % kSecond / 1000};
}

bool is_valid(const timespec& time) {
  return time.tv_sec >= 0 && time.tv_nsec >= 0 && time.tv_nsec < kSecond;
}
std::int64_t to_ns(const timespec& time) {
  return time.tv_sec * kSecond + time.tv_nsec;
}

// -1 for a clock that there is not.
std::int64_t read_clock(std::uint64_t clock) {
  switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_TAI:
      return wall_clock_ns();
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME:
      return static_cast<std::int64_t>(monotonic_ns());
    case CLOCK_THREAD_CPUTIME_ID:
      return static_cast<std::int64_t>(thread_busy_ns());
    case CLOCK_PROCESS_CPUTIME_ID:
      return static_cast<std::int64_t>(program_busy_ns());
    default:
      return -1;
  }
}

std::int64_t do_clock_gettime(const SyscallFrame& f) {
  std::int64_t ns = read_clock(f.rdi);
  if (ns < 0) return -EINVAL;
  *f.pointer<timespec>(1) = to_timespec(ns);
  return 0;
}

std::int64_t do_clock_getres(const SyscallFrame& f) {
  if (read_clock(f.rdi) < 0) return -EINVAL;
  if (f.rsi) *f.pointer<timespec>(1) = {0, 1};
  return 0;
}

std::int64_t do_gettimeofday(const SyscallFrame& f) {
  if (f.rdi) *f.pointer<timeval>(0) = to_timeval(wall_clock_ns());
  if (f.rsi) std::memset(f.pointer<char>(1), 0, sizeof(struct timezone));
  return 0;
}

std::int64_t do_time(const SyscallFrame& f) {
  std::int64_t seconds = wall_clock_ns() / kSecond;
  if (f.rdi) *f.pointer<std::int64_t>(0) = seconds;
  return seconds;
}

// There are no signals: a sleep always lasts its time.
std::int64_t sleep_until(std::uint64_t deadline_ns) {
  while (monotonic_ns() < deadline_ns) halt_until_interrupt_or(deadline_ns);
  return 0;
}

std::int64_t do_nanosleep(const SyscallFrame& f) {
  timespec time = *f.pointer<const timespec>(0);
  if (!is_valid(time)) return -EINVAL;
  return sleep_until(monotonic_ns() + static_cast<std::uint64_t>(to_ns(time)));
}

std::int64_t do_clock_nanosleep(const SyscallFrame& f) {
  timespec time = *f.pointer<const timespec>(2);
  std::int64_t now = read_clock(f.rdi);
  if (!is_valid(time) || now < 0) return -EINVAL;
  std::int64_t wait = f.rsi & TIMER_ABSTIME ? to_ns(time) - now : to_ns(time);
  return wait <= 0 ? 0 : sleep_until(monotonic_ns() + static_cast<std::uint64_t>(wait));
}

std::int64_t do_getrusage(const SyscallFrame& f) {
  auto* usage = f.pointer<rusage>(1);
  std::memset(usage, 0, sizeof *usage);
  bool thread = static_cast<int>(f.rdi) == RUSAGE_THREAD;
  usage->ru_utime = to_timeval(static_cast<std::int64_t>(thread ? thread_busy_ns() : program_busy_ns()));
  return 0;
}

std::int64_t do_times(const SyscallFrame& f) {
  constexpr std::int64_t kTickNs = kSecond / 100;
  if (f.rdi) {
    std::memset(f.pointer<char>(0), 0, sizeof(tms));
    f.pointer<tms>(0)->tms_utime = static_cast<std::int64_t>(program_busy_ns()) / kTickNs;
  }
  return static_cast<std::int64_t>(monotonic_ns()) / kTickNs;
}

constexpr SyscallEntry kEntries[] = {
    {SYS_clock_gettime, do_clock_gettime}, {SYS_clock_getres, do_clock_getres},
    {SYS_gettimeofday, do_gettimeofday},   {SYS_time, do_time},
    {SYS_nanosleep, do_nanosleep},         {SYS_clock_nanosleep, do_clock_nanosleep},
    {SYS_getrusage, do_getrusage},         {SYS_times, do_times},
};

}  // namespace

SyscallGroup time_syscalls() {
  return {kEntries, std::size(kEntries)};
}

}  // namespace kelda::kernel
