#include "kernel/apic.h"

#include "kernel/check.h"
#include "kernel/cpu.h"
#include "kernel/machine.h"
#include "kernel/paging.h"
#include "kernel/traps.h"

namespace kelda::kernel {

namespace {

// Register offsets of the memory-mapped kind; x2APIC has register r at MSR 0x800 + r / 16.
constexpr std::uint32_t kId = 0x20, kEoi = 0xb0, kSpurious = 0xf0, kCommandLow = 0x300, kCommandHigh = 0x310;
constexpr std::uint32_t kTimer = 0x320, kTimerInitial = 0x380, kTimerCurrent = 0x390, kTimerDivide = 0x3e0;
constexpr std::uint32_t kTaskPriority = 0x80;

constexpr std::uint32_t kDeliverNmi = 4u << 8, kDeliverInit = 5u << 8, kDeliverStartup = 6u << 8;
constexpr std::uint32_t kAssert = 1u << 14, kPending = 1u << 12;
constexpr std::uint32_t kTimerDeadlineMode = 2u << 17;
constexpr std::uint64_t kBaseEnable = 1u << 11, kBaseX2 = 1u << 10;

constinit bool g_x2 = false;
constinit volatile std::byte* g_registers = nullptr;

std::uint32_t read(std::uint32_t reg) {
  if (g_x2) return static_cast<std::uint32_t>(read_msr(kMsrX2ApicFirst + reg / 16));
  return *reinterpret_cast<volatile std::uint32_t*>(g_registers + reg);
}

void write(std::uint32_t reg, std::uint32_t value) {
  if (g_x2) {
    write_msr(kMsrX2ApicFirst + reg / 16, value);
  } else {
    *reinterpret_cast<volatile std::uint32_t*>(g_registers + reg) = value;
  }
}

// Interrupts off: the memory-mapped command is two writes.
void send(std::uint32_t apic_id, std::uint32_t command) {
  // WRMSR to x2APIC registers does not wait for earlier stores (SDM 11.12.3); the flags that the interrupted CPU will
  // read must be visible first.
  asm volatile("mfence" ::: "memory");
  if (g_x2) {
    write_msr(kMsrX2ApicFirst + kCommandLow / 16, std::uint64_t{apic_id} << 32 | command);
    return;
  }
  InterruptsOff off;
  while (read(kCommandLow) & kPending) pause();
  write(kCommandHigh, apic_id << 24);
  write(kCommandLow, command);
}

}  // namespace

void init_apic() {
  constexpr std::uint32_t kX2Feature = 1u << 21;
  g_x2 = cpuid(1).ecx & kX2Feature;
  if (g_x2) return;
  auto registers = map_mmio(PhysAddr(read_msr(kMsrApicBase) & kPteFrameMask), kPageBytes);
  KERNEL_CHECK(registers);
  g_registers = static_cast<volatile std::byte*>(*registers);
}

void enable_apic_this_cpu() {
  write_msr(kMsrApicBase, read_msr(kMsrApicBase) | kBaseEnable | (g_x2 ? kBaseX2 : 0));
  write(kTaskPriority, 0);
  write(kSpurious, 1u << 8 | kVectorSpurious);
}

std::uint32_t apic_id_of_this_cpu() {
  return g_x2 ? read(kId) : read(kId) >> 24;
}

void end_of_interrupt() {
  write(kEoi, 0);
}

void send_interrupt(std::uint32_t apic_id, std::uint8_t vector) {
  send(apic_id, kAssert | vector);
}
void send_nmi(std::uint32_t apic_id) {
  send(apic_id, kAssert | kDeliverNmi);
}
void send_init(std::uint32_t apic_id) {
  send(apic_id, kAssert | kDeliverInit);
}
void send_startup(std::uint32_t apic_id, std::uint8_t page_number) {
  send(apic_id, kAssert | kDeliverStartup | page_number);
}

void start_apic_timer(std::uint32_t ticks) {
  write(kTimerInitial, ticks);
}
std::uint32_t apic_timer_ticks_left() {
  return read(kTimerCurrent);
}

void use_tsc_deadline_timer() {
  write(kTimer, kTimerDeadlineMode | kVectorTimer);
  // The mode must be in force before the first deadline is written (SDM 11.5.4.1).
  asm volatile("mfence" ::: "memory");
}

void use_one_shot_timer() {
  write(kTimer, kVectorTimer);
  write(kTimerDivide, 3);  // by 16
}

}  // namespace kelda::kernel
