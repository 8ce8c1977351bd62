#include "kernel/shim_threads.h"

#include <errno.h>
#include <linux/sched.h>
#include <sys/syscall.h>

#include <atomic>

#include "kernel/cpu_state.h"
#include "kernel/internal.h"
#include "kernel/kernel.h"
#include "kernel/machine.h"
#include "kernel/shim.h"
#include "kernel/time.h"

extern "C" {
[[noreturn]] void kelda_enter_thread(const kelda::kernel::SyscallFrame* frame, std::uint64_t stack);
[[noreturn]] void kelda_switch_stack(std::uint64_t stack, void (*function)());
}

namespace kelda::kernel {

namespace {

constinit std::atomic<std::uint32_t> g_live_threads{0};
constinit std::atomic<std::uint64_t> g_finished_busy_ns{0};

std::int64_t tid_of(std::uint32_t cpu_index) {
  return cpu_index + 1;
}

// An idle CPU, taken; waits for those that have not come up yet. Null when every CPU has a thread.
CpuState* take_idle_cpu() {
  constexpr std::uint64_t kNudgeNs = 50'000'000, kGiveUpNs = 2'000'000'000;
  std::uint64_t begin = monotonic_ns(), nudge_at = begin + kNudgeNs;
  for (;;) {
    bool some_offline = false;
    for (std::uint32_t i = 0; i < g_cpu_count; ++i) {
      ThreadPhase expected = ThreadPhase::kIdle;
      if (g_cpus[i].thread.phase.compare_exchange_strong(expected, ThreadPhase::kStarting)) return &g_cpus[i];
      some_offline |= expected == ThreadPhase::kOffline;
    }
    std::uint64_t now = monotonic_ns();
    if (!some_offline || now > begin + kGiveUpNs) return nullptr;
    if (now > nudge_at) {
      for (std::uint32_t i = 1; i < g_cpu_count; ++i) {
        if (!g_cpus[i].started.load(std::memory_order_acquire)) nudge_cpu(i);
      }
      nudge_at = kNoDeadline;
    }
    pause();
  }
}

void note_thread_start(CpuState& cpu) {
  cpu.thread.start_ns = monotonic_ns();
  cpu.thread.start_halted_ns = cpu.halted_ns.load(std::memory_order_relaxed);
}

std::uint64_t busy_ns(const CpuState& cpu) {
  return monotonic_ns() - cpu.thread.start_ns -
         (cpu.halted_ns.load(std::memory_order_relaxed) - cpu.thread.start_halted_ns);
}

[[noreturn]] void wait_for_thread() {
  CpuState& cpu = this_cpu();
  ThreadSlot& slot = cpu.thread;
  asm volatile("sti" ::: "memory");
  // Acquire: the starter wrote the slot before the phase.
  while (slot.phase.load(std::memory_order_acquire) != ThreadPhase::kStarting ||
         !slot.ready.load(std::memory_order_acquire)) {
    halt_until_interrupt_or(kNoDeadline);
  }
  slot.ready.store(false, std::memory_order_relaxed);
  note_thread_start(cpu);
  write_msr(kMsrFsBase, slot.start_tls);
  slot.phase.store(ThreadPhase::kRunning, std::memory_order_release);
  kelda_enter_thread(&slot.start_frame, slot.start_stack);
}

// On the idle stack: the thread's own may be reused as soon as its id is cleared.
void finish_thread() {
  CpuState& cpu = this_cpu();
  std::uint32_t* clear_tid = cpu.thread.clear_tid;
  g_finished_busy_ns.fetch_add(busy_ns(cpu), std::memory_order_relaxed);
  if (g_live_threads.fetch_sub(1, std::memory_order_acq_rel) == 1) exit_vm(0);
  // Idle before the id is cleared: whoever joins this thread and starts another finds the CPU free.
  cpu.thread.phase.store(ThreadPhase::kIdle, std::memory_order_release);
  if (clear_tid) {
    std::atomic_ref(*clear_tid).store(0, std::memory_order_release);
    futex_wake(clear_tid, 1, kAllFutexBits);
  }
  wait_for_thread();
}

std::int64_t do_clone3(const SyscallFrame& f) {
  constexpr std::uint64_t kNeeded = CLONE_VM | CLONE_THREAD | CLONE_SETTLS;
  clone_args args = *f.pointer<clone_args>(0);
  if ((args.flags & kNeeded) != kNeeded) return -ENOSYS;  // a process, not a thread
  CpuState* cpu = take_idle_cpu();
  if (!cpu) return -EAGAIN;
  ThreadSlot& slot = cpu->thread;
  std::int64_t tid = tid_of(cpu->index);
  slot.start_frame = f;
  slot.start_stack = args.stack + args.stack_size;
  slot.start_tls = args.tls;
  slot.clear_tid = args.flags & CLONE_CHILD_CLEARTID ? reinterpret_cast<std::uint32_t*>(args.child_tid) : nullptr;
  if (args.flags & CLONE_PARENT_SETTID)
    *reinterpret_cast<std::int32_t*>(args.parent_tid) = static_cast<std::int32_t>(tid);
  if (args.flags & CLONE_CHILD_SETTID)
    *reinterpret_cast<std::int32_t*>(args.child_tid) = static_cast<std::int32_t>(tid);
  g_live_threads.fetch_add(1, std::memory_order_relaxed);
  slot.ready.store(true, std::memory_order_release);
  wake_cpu(cpu->index);
  return tid;
}

std::int64_t do_exit(const SyscallFrame&) {
  kelda_switch_stack(this_cpu().idle_stack_top, finish_thread);
}

std::int64_t do_set_tid_address(const SyscallFrame& f) {
  this_cpu().thread.clear_tid = f.pointer<std::uint32_t>(0);
  return tid_of(this_cpu_index());
}

std::int64_t do_gettid(const SyscallFrame&) {
  return tid_of(this_cpu_index());
}

std::int64_t do_sched_getaffinity(const SyscallFrame& f) {
  std::uint64_t size_bytes = f.rsi;
  if (size_bytes < 8) return -EINVAL;
  auto* mask = f.pointer<std::uint64_t>(2);
  *mask = g_cpu_count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << g_cpu_count) - 1;
  return 8;
}

// A thread stays where it was started: asking for that is granted, anything else refused.
std::int64_t do_sched_setaffinity(const SyscallFrame& f) {
  if (f.rsi == 0) return -EINVAL;
  std::uint32_t cpu = f.rdi == 0 ? this_cpu_index() : static_cast<std::uint32_t>(f.rdi - 1);
  if (cpu / 8 >= f.rsi) return -EINVAL;
  return f.pointer<const std::uint8_t>(2)[cpu / 8] >> cpu % 8 & 1 ? 0 : -EINVAL;
}

// Nothing else wants the CPU.
std::int64_t do_sched_yield(const SyscallFrame&) {
  pause();
  return 0;
}

std::int64_t do_getcpu(const SyscallFrame& f) {
  if (f.rdi) *f.pointer<std::uint32_t>(0) = this_cpu_index();
  if (f.rsi) *f.pointer<std::uint32_t>(1) = 0;
  return 0;
}

// A thread cannot die while it holds a robust mutex: threads are never killed.
std::int64_t do_set_robust_list(const SyscallFrame&) {
  return 0;
}
std::int64_t do_not_offered(const SyscallFrame&) {
  return -ENOSYS;
}

constexpr SyscallEntry kEntries[] = {
    {SYS_clone3, do_clone3},
    {SYS_clone, do_not_offered},
    {SYS_vfork, do_not_offered},
    {SYS_fork, do_not_offered},
    {SYS_exit, do_exit},
    {SYS_set_tid_address, do_set_tid_address},
    {SYS_gettid, do_gettid},
    {SYS_sched_getaffinity, do_sched_getaffinity},
    {SYS_sched_setaffinity, do_sched_setaffinity},
    {SYS_sched_yield, do_sched_yield},
    {SYS_getcpu, do_getcpu},
    {SYS_set_robust_list, do_set_robust_list},
    {SYS_rseq, do_not_offered},
    {SYS_membarrier, do_not_offered},
};

}  // namespace

void begin_main_thread() {
  g_live_threads.store(1, std::memory_order_relaxed);
  note_thread_start(this_cpu());
  this_cpu().thread.phase.store(ThreadPhase::kRunning, std::memory_order_release);
}

void idle_this_cpu() {
  this_cpu().thread.phase.store(ThreadPhase::kIdle, std::memory_order_release);
  wait_for_thread();
}

std::uint64_t thread_busy_ns() {
  return busy_ns(this_cpu());
}

std::uint64_t program_busy_ns() {
  std::uint64_t total = g_finished_busy_ns.load(std::memory_order_relaxed);
  for (std::uint32_t i = 0; i < g_cpu_count; ++i) {
    if (g_cpus[i].thread.phase.load(std::memory_order_acquire) == ThreadPhase::kRunning) total += busy_ns(g_cpus[i]);
  }
  return total;
}

SyscallGroup thread_syscalls() {
  return {kEntries, std::size(kEntries)};
}

}  // namespace kelda::kernel
