// futex: a thread waits on its own CPU, so the waiters are at most the CPUs, and a scan finds them.
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>

#include <atomic>

#include "kernel/cpu_state.h"
#include "kernel/shim.h"
#include "kernel/spinlock.h"
#include "kernel/time.h"

namespace kelda::kernel {

namespace {

constinit SpinLock g_lock;  // guards `address` and `bits` of every FutexWaiter

std::uint64_t to_ns(const timespec& time) {
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_nsec);
}

std::uint64_t deadline_of(const timespec* timeout, std::uint64_t operation) {
  if (!timeout) return kNoDeadline;
  std::uint64_t now = monotonic_ns();
  if ((operation & FUTEX_CMD_MASK) == FUTEX_WAIT) return now + to_ns(*timeout);
  if (!(operation & FUTEX_CLOCK_REALTIME)) return to_ns(*timeout);
  std::int64_t wait = static_cast<std::int64_t>(to_ns(*timeout)) - wall_clock_ns();
  return wait > 0 ? now + static_cast<std::uint64_t>(wait) : now;
}

// False if a waker was quicker.
bool withdraw(FutexWaiter& waiter) {
  LockGuard guard(g_lock);
  if (!waiter.address) return false;
  waiter.address = nullptr;
  return true;
}

std::int64_t wait(std::uint32_t* address, std::uint32_t expected, std::uint32_t bits, std::uint64_t deadline_ns) {
  FutexWaiter& waiter = this_cpu().futex;
  std::atomic_ref<std::uint32_t> word(*address);
  if (word.load(std::memory_order_acquire) != expected) return -EAGAIN;
  {
    // Checked again under the lock: a waker changes the word, then takes the lock to look for waiters.
    LockGuard guard(g_lock);
    if (word.load(std::memory_order_acquire) != expected) return -EAGAIN;
    waiter.woken.store(false, std::memory_order_relaxed);
    waiter.bits = bits;
    waiter.address = address;
  }
  constexpr int kSpins = 64;  // most waits for a lock are shorter than a sleep
  for (int i = 0; i < kSpins && !waiter.woken.load(std::memory_order_acquire); ++i) pause();
  while (!waiter.woken.load(std::memory_order_acquire)) {
    if (monotonic_ns() >= deadline_ns) return withdraw(waiter) ? -ETIMEDOUT : 0;
    halt_until_interrupt_or(deadline_ns);
  }
  return 0;
}

std::int64_t do_futex(const SyscallFrame& f) {
  auto* address = f.pointer<std::uint32_t>(0);
  std::uint64_t operation = f.argument(1);
  auto value = static_cast<std::uint32_t>(f.argument(2));
  auto* timeout = f.pointer<const timespec>(3);
  auto bits = static_cast<std::uint32_t>(f.argument(5));
  switch (operation & FUTEX_CMD_MASK) {
    case FUTEX_WAIT:
      return wait(address, value, kAllFutexBits, deadline_of(timeout, operation));
    case FUTEX_WAIT_BITSET:
      return wait(address, value, bits, deadline_of(timeout, operation));
    case FUTEX_WAKE:
      return futex_wake(address, static_cast<int>(value), kAllFutexBits);
    case FUTEX_WAKE_BITSET:
      return futex_wake(address, static_cast<int>(value), bits);
    default:
      return -ENOSYS;
  }
}

constexpr SyscallEntry kEntries[] = {{SYS_futex, do_futex}};

}  // namespace

int futex_wake(const std::uint32_t* address, int count, std::uint32_t bits) {
  LockGuard guard(g_lock);
  int woken = 0;
  for (std::uint32_t i = 0; i < g_cpu_count && woken < count; ++i) {
    FutexWaiter& waiter = g_cpus[i].futex;
    if (waiter.address != address || !(waiter.bits & bits)) continue;
    waiter.address = nullptr;
    waiter.woken.store(true, std::memory_order_release);
    wake_cpu(i);
    ++woken;
  }
  return woken;
}

SyscallGroup futex_syscalls() {
  return {kEntries, std::size(kEntries)};
}

}  // namespace kelda::kernel
