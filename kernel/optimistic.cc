// Loads in the buffer pool's range through entries that are not present (paging.h, set_optimistic_range).
//
//   main top table:       ... | slot of the pool -> its tables | ...
//   alternate top table:  ... | slot of the pool -> zero PDPT -> zero PD -> zero PT -> zero page, read-only | ...
//
// The fault handler puts the CPU on the alternate table and sets the trap flag; the load runs again, reads zeroes, and
// the debug exception puts the CPU back. Interrupts are masked for that one instruction, so nothing else runs
// meanwhile. Another page of the same instruction that is demand-zero faults as usual: all slots but the pool's lead to
// the shared tables.
#include <atomic>

#include "kernel/check.h"
#include "kernel/cpu_state.h"
#include "kernel/machine.h"
#include "kernel/memory.h"
#include "kernel/paging.h"
#include "kernel/tables.h"
#include "kernel/traps.h"

namespace kelda::kernel {

alignas(kPageBytes) constinit std::uint64_t g_alternate_top[kTableEntries] = {};

namespace {
constinit std::atomic<VirtAddr> g_begin{0}, g_end{0};
constinit std::atomic<std::uint64_t> g_fault_count{0};

// A table whose every entry is `entry`.
std::optional<PhysAddr> uniform_table(std::uint64_t entry) {
  auto frame = alloc_frame();
  if (!frame) return std::nullopt;
  auto* entries = reinterpret_cast<std::uint64_t*>(frame->value);
  for (std::size_t i = 0; i < kTableEntries; ++i) entries[i] = entry;
  return frame;
}
}  // namespace

bool is_optimistic_slot(unsigned slot) {
  VirtAddr begin = g_begin.load(std::memory_order_relaxed), end = g_end.load(std::memory_order_relaxed);
  return begin != end && slot >= top_index(begin) && slot <= top_index(end - 1);
}

Result<> set_optimistic_range(VirtAddr base, std::size_t size_bytes) {
  KERNEL_CHECK(base >= kReservedBase && base + size_bytes <= kReservedEnd && base % kRegionAlignBytes == 0 &&
               size_bytes > 0);
  KERNEL_CHECK(g_begin.load(std::memory_order_relaxed) == 0);
  std::uint64_t entry = kPtePresent;
  for (int level = 0; level < 4; ++level) {
    // First the page of zeroes, then one table a level that leads there.
    auto frame = uniform_table(level == 0 ? 0 : entry);
    if (!frame) return Code::kOutOfMemory;
    entry = frame->value | kPtePresent | (level == 0 ? kPteNoExecute : 0);
  }
  for (unsigned slot = top_index(base); slot <= top_index(base + size_bytes - 1); ++slot) g_alternate_top[slot] = entry;
  g_end.store(base + size_bytes, std::memory_order_relaxed);
  g_begin.store(base, std::memory_order_release);
  return {};
}

bool begin_optimistic_step(TrapFrame& frame, std::uint64_t address) {
  VirtAddr begin = g_begin.load(std::memory_order_acquire);
  if (begin == 0 || address < begin || address >= g_end.load(std::memory_order_relaxed)) return false;
  if (frame.error & (kFaultPresent | kFaultWrite | kFaultReserved | kFaultFetch)) return false;
  CpuState& cpu = this_cpu();
  if (cpu.stepping) return false;
  cpu.stepping = true;
  cpu.stepping_interrupts = frame.rflags & kFlagInterrupt;
  cpu.main_cr3 = read_cr3();
  write_cr3(reinterpret_cast<std::uint64_t>(g_alternate_top));
  frame.rflags = (frame.rflags & ~kFlagInterrupt) | kFlagTrap;
  g_fault_count.fetch_add(1, std::memory_order_relaxed);
  return true;
}

bool end_optimistic_step(TrapFrame& frame) {
  CpuState& cpu = this_cpu();
  if (!cpu.stepping) return false;
  write_cr3(cpu.main_cr3);
  asm volatile("mov %0, %%dr6" ::"r"(std::uint64_t{0xffff'0ff0}));
  cpu.stepping = false;
  frame.rflags &= ~kFlagTrap;
  if (cpu.stepping_interrupts) frame.rflags |= kFlagInterrupt;
  return true;
}

std::uint64_t optimistic_fault_count() {
  return g_fault_count.load(std::memory_order_relaxed);
}

}  // namespace kelda::kernel
