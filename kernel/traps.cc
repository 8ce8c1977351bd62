// Where every interrupt and exception arrives, with interrupts off and on a stack of its kind.
#include "kernel/traps.h"

#include "kernel/apic.h"
#include "kernel/cpu_state.h"
#include "kernel/internal.h"
#include "kernel/machine.h"
#include "kernel/panic.h"
#include "kernel/tlb.h"

namespace kelda::kernel {

namespace {

const char* exception_name(std::uint64_t vector) {
  static const char* const names[32] = {"divide error",
                                        "debug exception",
                                        "non-maskable interrupt",
                                        "breakpoint",
                                        "overflow",
                                        "bound range exceeded",
                                        "invalid opcode",
                                        "device not available",
                                        "double fault",
                                        "coprocessor overrun",
                                        "invalid task state",
                                        "segment not present",
                                        "stack segment fault",
                                        "general protection fault",
                                        "page fault",
                                        "exception 15",
                                        "x87 floating-point error",
                                        "alignment check",
                                        "machine check",
                                        "SIMD floating-point error",
                                        "virtualization exception",
                                        "control protection exception",
                                        "exception 22",
                                        "exception 23",
                                        "exception 24",
                                        "exception 25",
                                        "exception 26",
                                        "exception 27",
                                        "hypervisor injection exception",
                                        "VMM communication exception",
                                        "security exception",
                                        "exception 31"};
  return names[vector];
}

void handle_exception(TrapFrame& frame) {
  switch (frame.vector) {
    case kVectorPageFault:
      handle_page_fault(frame);
      return;
    case kVectorNmi:
      stop_for_panic(frame);
    case kVectorDebug:
      if (end_optimistic_step(frame)) return;
      break;
    default:
      break;
  }
  panic_in_trap(exception_name(frame.vector), frame, frame.vector == kVectorDoubleFault ? read_cr2() : 0);
}

void handle_interrupt(std::uint8_t vector) {
  if (vector == kVectorSpurious || (vector >= 32 && vector < kFirstDeviceVector))
    return;  // these want no end-of-interrupt
  CpuState& cpu = this_cpu();
  // Awake before anything else runs here (tlb.h, T3).
  cpu.halted.store(false, std::memory_order_seq_cst);
  tlb_pass();
  cpu.interrupts.fetch_add(1, std::memory_order_relaxed);
  if (vector == kVectorTimer) {
    note_timer_fired();
  } else {
    call_interrupt_handler(vector);
  }
  // After the handler: by now a level-triggered device has let go of its line.
  end_of_interrupt();
  // C1: whatever the handler changed, the CPU looks at it before it sleeps.
  cpu.wake.store(true, std::memory_order_seq_cst);
}

}  // namespace

extern "C" void kelda_trap(TrapFrame* frame) {
  if (frame->vector < 32) {
    handle_exception(*frame);
  } else {
    handle_interrupt(static_cast<std::uint8_t>(frame->vector));
  }
}

}  // namespace kelda::kernel
