#include "kernel/cpu.h"

#include "kernel/apic.h"
#include "kernel/cpu_state.h"
#include "kernel/internal.h"
#include "kernel/machine.h"
#include "kernel/time.h"
#include "kernel/tlb.h"

namespace kelda::kernel {

void wake_cpu(std::uint32_t index) {
  CpuState& cpu = g_cpus[index];
  // Sequentially consistent against halt_until_interrupt_or(): either this sees "halted" and sends the interrupt, or
  // the sleeper sees "wake" and does not sleep.
  cpu.wake.store(true, std::memory_order_seq_cst);
  if (cpu.halted.load(std::memory_order_seq_cst)) send_interrupt(cpu.apic_id, kVectorWake);
}

void halt_until_interrupt_or(std::uint64_t deadline_ns) {
  CpuState& cpu = this_cpu();
  std::uint64_t begin = monotonic_ns();
  if (deadline_ns <= begin) return;
  asm volatile("cli" ::: "memory");
  if (deadline_ns != kNoDeadline) arm_timer(deadline_ns);
  cpu.halted.store(true, std::memory_order_seq_cst);
  if (!cpu.wake.load(std::memory_order_seq_cst)) {
    // The interrupt window opens only after hlt has begun: nothing can slip in between.
    asm volatile("sti; hlt; cli" ::: "memory");
    cpu.halted_ns.fetch_add(monotonic_ns() - begin, std::memory_order_relaxed);
  }
  cpu.halted.store(false, std::memory_order_seq_cst);
  tlb_pass();
  cpu.wake.exchange(false, std::memory_order_seq_cst);
  asm volatile("sti" ::: "memory");
  refine_clock();
}

bool cpu_is_halted(std::uint32_t index) {
  return g_cpus[index].halted.load(std::memory_order_relaxed);
}
std::uint64_t cpu_halted_ns(std::uint32_t index) {
  return g_cpus[index].halted_ns.load(std::memory_order_relaxed);
}
std::uint64_t interrupt_count(std::uint32_t index) {
  return g_cpus[index].interrupts.load(std::memory_order_relaxed);
}

}  // namespace kelda::kernel
