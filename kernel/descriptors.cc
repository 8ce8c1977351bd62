// Segment and interrupt descriptors, and the processor state that the program relies on.
#include <cstring>

#include "kernel/boot_constants.h"
#include "kernel/cpu_state.h"
#include "kernel/internal.h"
#include "kernel/machine.h"
#include "kernel/traps.h"

extern "C" char kelda_trap_stubs[];
extern "C" char kelda_syscall_entry[];

namespace kelda::kernel {

constinit CpuState g_cpus[kMaxCpus];
constinit std::uint32_t g_cpu_count = 1;

namespace {

constexpr std::uint16_t kCodeSelector = 0x08, kDataSelector = 0x10, kTaskSelector = 0x20;

struct [[gnu::packed]] TablePointer {
  std::uint16_t limit;
  std::uint64_t base;
};

// Interrupt gate (Intel SDM vol. 3, 6.14.1).
struct Gate {
  std::uint16_t offset_low, selector;
  std::uint8_t stack_slot, type;
  std::uint16_t offset_middle;
  std::uint32_t offset_high, reserved;
};
static_assert(sizeof(Gate) == 16);

constinit Gate g_gates[256] = {};

StackSlot slot_of(unsigned vector) {
  switch (vector) {
    case kVectorDebug:
      return StackSlot::kDebug;
    case kVectorNmi:
      return StackSlot::kNmi;
    case kVectorDoubleFault:
      return StackSlot::kDoubleFault;
    case kVectorPageFault:
      return StackSlot::kPageFault;
    case kVectorMachineCheck:
      return StackSlot::kMachineCheck;
    default:
      return vector < 32 ? StackSlot::kException : StackSlot::kInterrupt;
  }
}

void load_segments(CpuState& cpu) {
  auto base = reinterpret_cast<std::uint64_t>(&cpu.task_state);
  cpu.task_state.io_map_offset = sizeof(TaskState);
  cpu.gdt[0] = 0;
  cpu.gdt[1] = 0x00af'9b00'0000'ffff;
  cpu.gdt[2] = 0x00cf'9300'0000'ffff;
  cpu.gdt[3] = 0;
  cpu.gdt[4] = (sizeof(TaskState) - 1) | (base & 0xff'ffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
  cpu.gdt[5] = base >> 32;
  TablePointer gdt{sizeof cpu.gdt - 1, reinterpret_cast<std::uint64_t>(cpu.gdt)};
  TablePointer idt{sizeof g_gates - 1, reinterpret_cast<std::uint64_t>(g_gates)};
  asm volatile("lgdt %0" ::"m"(gdt));
  asm volatile("lidt %0" ::"m"(idt));
  asm volatile("pushq %0; leaq 1f(%%rip), %%rax; pushq %%rax; lretq; 1: mov %1, %%ds; mov %1, %%es; mov %1, %%ss" ::"i"(
                   kCodeSelector),
               "r"(std::uint32_t{kDataSelector})
               : "rax", "memory");
  asm volatile("ltr %0" ::"r"(kTaskSelector));
}

void enable_vector_state() {
  constexpr std::uint32_t kXsave = 1u << 26, kAvx = 1u << 28;
  constexpr std::uint64_t kOsXsave = 1u << 18;
  auto features = cpuid(1);
  if (!(features.ecx & kXsave)) return;
  write_cr4(read_cr4() | kOsXsave);
  // x87 and SSE always; AVX and AVX-512 state where the processor has it.
  std::uint64_t mask = 0x3;
  std::uint64_t offered = cpuid(0xd).eax;
  if (features.ecx & kAvx) mask |= offered & 0xe4;
  asm volatile("xsetbv" ::"c"(0), "a"(static_cast<std::uint32_t>(mask)), "d"(0));
}

void enable_system_calls() {
  // Flags are kept across the call but for direction and alignment check: the caller's interrupt flag stays as it is.
  write_msr(kMsrStar, std::uint64_t{kCodeSelector} << 32);
  write_msr(kMsrLstar, reinterpret_cast<std::uint64_t>(kelda_syscall_entry));
  write_msr(kMsrFlagMask, kFlagDirection | kFlagAlignment | kFlagTrap);
}

}  // namespace

void build_interrupt_table() {
  for (unsigned vector = 0; vector < 256; ++vector) {
    auto address = reinterpret_cast<std::uint64_t>(kelda_trap_stubs) + 16 * vector;
    g_gates[vector] = {static_cast<std::uint16_t>(address),
                       kCodeSelector,
                       static_cast<std::uint8_t>(slot_of(vector)),
                       0x8e,
                       static_cast<std::uint16_t>(address >> 16),
                       static_cast<std::uint32_t>(address >> 32),
                       0};
  }
}

void set_up_boot_cpu() {
  alignas(16) static constinit std::byte stack[kKernelStackBytes] = {};
  CpuState& cpu = g_cpus[0];
  cpu.self = &cpu;
  for (std::size_t i = 0; i < kStackSlots; ++i)
    cpu.task_state.stacks[i] = reinterpret_cast<std::uint64_t>(stack + sizeof stack);
  load_segments(cpu);
  write_msr(kMsrGsBase, reinterpret_cast<std::uint64_t>(&cpu));
}

void set_up_this_cpu(std::uint32_t index) {
  CpuState& cpu = g_cpus[index];
  cpu.self = &cpu;
  cpu.index = index;
  for (std::size_t i = 0; i < kStackSlots; ++i) cpu.task_state.stacks[i] = make_kernel_stack(kKernelStackBytes);
  load_segments(cpu);
  write_msr(kMsrGsBase, reinterpret_cast<std::uint64_t>(&cpu));
  enable_vector_state();
  enable_system_calls();
}

std::uint32_t cpu_count() {
  return g_cpu_count;
}
std::uint32_t this_cpu_index() {
  std::uint32_t index;
  asm volatile("movl %%gs:8, %0" : "=r"(index));
  return index;
}

}  // namespace kelda::kernel
