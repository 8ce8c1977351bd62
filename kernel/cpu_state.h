// What each CPU keeps for itself; %gs points at it. Private to kernel/.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kernel/cpu.h"
#include "kernel/shim.h"
#include "kernel/traps.h"

namespace kelda::kernel {

// Interrupt stack table slots (1..7). A handler may be interrupted only by something with a stack of its own.
enum class StackSlot : std::uint8_t {
  kPageFault = 1,
  kInterrupt = 2,
  kDoubleFault = 3,
  kNmi = 4,
  kException = 5,
  kDebug = 6,
  kMachineCheck = 7,
};
inline constexpr std::size_t kStackSlots = 7;
inline constexpr std::size_t kKernelStackBytes = 16 * 1024;

// Task state segment (Intel SDM vol. 3, 8.7).
struct [[gnu::packed]] TaskState {
  std::uint32_t reserved0;
  std::uint64_t rsp[3];
  std::uint64_t reserved1;
  std::uint64_t stacks[kStackSlots];
  std::uint64_t reserved2;
  std::uint16_t reserved3;
  std::uint16_t io_map_offset;
};
static_assert(sizeof(TaskState) == 104);

// A CPU's life as a thread of the program (shim_threads.cc).
enum class ThreadPhase : std::uint8_t { kOffline, kIdle, kStarting, kRunning };
struct ThreadSlot {
  std::atomic<ThreadPhase> phase{ThreadPhase::kOffline};
  std::atomic<bool> ready{false};  // the fields below are complete
  SyscallFrame start_frame{};      // of the clone3 call: the new thread goes on from there
  std::uint64_t start_stack = 0;
  std::uint64_t start_tls = 0;
  std::uint32_t* clear_tid = nullptr;  // zeroed and futex-woken when the thread ends
  std::uint64_t start_ns = 0, start_halted_ns = 0;
};

// Sleep of a futex waiter (shim_futex.cc). `address` is guarded by the futex lock.
struct FutexWaiter {
  const std::uint32_t* address = nullptr;
  std::uint32_t bits = 0;
  std::atomic<bool> woken{false};
};

struct alignas(64) CpuState {
  CpuState* self = nullptr;  // at %gs:0
  std::uint32_t index = 0;   // at %gs:8
  std::uint32_t apic_id = 0;

  // Sleep (cpu.cc). Sequentially consistent: waker stores wake then reads halted, sleeper stores halted then reads
  // wake.
  std::atomic<bool> wake{false};
  std::atomic<bool> halted{false};
  std::atomic<std::uint64_t> halted_ns{0};
  std::atomic<std::uint64_t> interrupts{0};
  std::uint64_t timer_deadline_ns = kNoDeadline;

  // Translations (tlb.cc): the generation of unmappings that this CPU has flushed.
  std::atomic<std::uint64_t> tlb_seen{0};

  // Optimistic loads (optimistic.cc).
  bool stepping = false;
  bool stepping_interrupts = false;
  std::uint64_t main_cr3 = 0;

  bool in_page_fault = false;
  std::atomic<bool> started{false};

  // Panic (panic.cc): registers at the stop, published by `stopped`.
  TrapFrame stop_frame{};
  std::atomic<bool> stopped{false};

  ThreadSlot thread;
  FutexWaiter futex;

  std::uint64_t idle_stack_top = 0;
  std::uint64_t gdt[8] = {};
  TaskState task_state{};
};

extern CpuState g_cpus[kMaxCpus];
extern std::uint32_t g_cpu_count;

inline CpuState& this_cpu() {
  CpuState* cpu;
  asm volatile("mov %%gs:0, %0" : "=r"(cpu));
  return *cpu;
}

// Points %gs at g_cpus[index], loads its GDT, TSS and the shared IDT, and sets the control registers and MSRs that the
// program relies on (SSE, AVX, SYSCALL). Every CPU calls it once, when its stacks can be allocated.
void set_up_this_cpu(std::uint32_t index);
// The same for the boot CPU before there is memory, so that a fault in the boot itself is reported: every kind of
// interrupt shares one static stack.
void set_up_boot_cpu();
// Fills the shared interrupt descriptor table; once.
void build_interrupt_table();

}  // namespace kelda::kernel
