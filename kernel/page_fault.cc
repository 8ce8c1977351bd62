// Page faults, in order: an access that is allowed by now (a stale translation, or another CPU was quicker),
// demand-zero memory, an optimistic load, and otherwise a bug of the program: panic with what the address looks like.
#include <atomic>

#include "kernel/cpu_state.h"
#include "kernel/demand.h"
#include "kernel/kernel.h"
#include "kernel/machine.h"
#include "kernel/panic.h"
#include "kernel/tables.h"
#include "kernel/traps.h"

namespace kelda::kernel {

namespace {

// Is the address in the page below a stack of the kernel's own? Nothing else is missing there.
bool is_kernel_guard(std::uint64_t address) {
  auto boot = reinterpret_cast<std::uint64_t>(kelda_boot_stack_guard);
  return (address >= kKernelBase && address < kKernelEnd) || round_down(address, kPageBytes) == boot;
}

const char* explain(const TrapFrame& frame, std::uint64_t address, DemandFault outcome) {
  if (outcome == DemandFault::kNoMemory) return "out of memory: no frame for demand-zero memory";
  if (frame.error & kFaultReserved) return "corrupt page table entry";
  if (address < kPageBytes) return "null pointer access";
  if (frame.error & kFaultFetch) return "jump to memory that is not code";
  constexpr std::uint64_t kNear = 64_KiB;
  bool near_stack = address + kNear > frame.rsp && address < frame.rsp + kNear;
  bool may_be_guard = outcome == DemandFault::kForbidden || is_kernel_guard(address);
  if (near_stack && may_be_guard) return "stack overflow: access to a guard page";
  if (outcome == DemandFault::kForbidden) return "access to protected memory";
  if ((frame.error & kFaultWrite) && (frame.error & kFaultPresent)) return "write to read-only memory";
  return "access to unmapped memory";
}

}  // namespace

void handle_page_fault(TrapFrame& frame) {
  std::uint64_t address = read_cr2();
  CpuState& cpu = this_cpu();
  if (cpu.in_page_fault) panic_in_trap("page fault inside the page-fault handler", frame, address);
  cpu.in_page_fault = true;
  DemandFault outcome = DemandFault::kNoArea;
  bool handled = access_is_allowed(address, frame.error);
  // Forget the stale translation: the processor does so itself on the fault, an emulator may not.
  if (handled) invalidate_page(address);
  if (!handled) {
    outcome = demand_fault(address, frame.error & kFaultWrite, frame.error & kFaultFetch);
    handled = outcome == DemandFault::kMapped || begin_optimistic_step(frame, address);
  }
  cpu.in_page_fault = false;
  if (!handled) panic_in_trap(explain(frame, address, outcome), frame, address);
}

}  // namespace kelda::kernel
