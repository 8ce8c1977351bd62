// Ending the machine and the power button: ACPI fixed hardware (q35, pc), reduced hardware (microvm), and what works
// without ACPI.
#include <atomic>

#include "kernel/acpi.h"
#include "kernel/internal.h"
#include "kernel/interrupts.h"
#include "kernel/kernel.h"
#include "kernel/machine.h"
#include "kernel/machine_info.h"
#include "kernel/paging.h"

namespace kelda::kernel {

namespace {

constexpr std::uint16_t kDebugExitPort = 0xf4;
constexpr std::uint16_t kSleepEnable = 1u << 13;
constexpr std::uint16_t kPowerButtonEvent = 1u << 8;
constexpr std::uint16_t kAcpiMode = 1;
// Of QEMU's generic event device.
constexpr std::uint32_t kEventPowerDown = 1u << 1;

constinit std::atomic<void (*)(void*)> g_handler{nullptr};
constinit void* g_handler_context = nullptr;
constinit volatile std::uint8_t* g_sleep_control = nullptr;
constinit volatile std::uint8_t* g_reset_register = nullptr;
constinit volatile std::uint32_t* g_event_select = nullptr;

[[noreturn]] void triple_fault() {
  struct [[gnu::packed]] {
    std::uint16_t limit = 0;
    std::uint64_t base = 0;
  } empty;
  asm volatile("lidt %0; int3" ::"m"(empty));
  halt_forever();
}

void wait_for_power_off() {
  for (int i = 0; i < 100'000'000; ++i) pause();
}

void write_register(const Register& reg, volatile std::uint8_t* mapped, std::uint8_t value) {
  if (reg.space == Register::Space::kPort) out8(static_cast<std::uint16_t>(reg.address), value);
  if (reg.space == Register::Space::kMemory && mapped) *mapped = value;
}

volatile std::uint8_t* map_register(const Register& reg) {
  if (reg.space != Register::Space::kMemory) return nullptr;
  auto mapped = map_mmio(PhysAddr(reg.address), 4);
  return mapped ? static_cast<volatile std::uint8_t*>(*mapped) : nullptr;
}

void on_power_button() {
  // Acquire: the context was stored before the handler.
  if (auto handler = g_handler.load(std::memory_order_acquire)) {
    handler(g_handler_context);
  } else {
    exit_vm(0);
  }
}

void on_fixed_event(void*) {
  const PowerInfo& power = g_machine.power;
  std::uint16_t status = in16(power.event_a);
  out16(power.event_a, status);  // write one to clear
  if (status & kPowerButtonEvent) on_power_button();
}

void on_generic_event(void*) {
  std::uint32_t events = *g_event_select;  // reading clears
  if (events & kEventPowerDown) on_power_button();
}

void enable_fixed_button() {
  const PowerInfo& power = g_machine.power;
  auto vector = register_interrupt(on_fixed_event, nullptr);
  if (!vector) return;
  if (power.smi_command && !(in16(power.control_a) & kAcpiMode)) out8(power.smi_command, power.acpi_enable);
  out16(power.event_a, kPowerButtonEvent);
  out16(static_cast<std::uint16_t>(power.event_a + power.event_bytes / 2), kPowerButtonEvent);
  // A line without an override is level-triggered, active low (ACPI 5.2.9, SCI_INT).
  IsaLine line = power.sci_irq < 16 ? g_machine.isa_lines[power.sci_irq] : IsaLine{power.sci_irq};
  auto routed = route_gsi(line.gsi, *vector, 0, Trigger::kLevel,
                          line.trigger == Trigger::kLevel ? line.polarity : Polarity::kLow);
  if (!routed) console_write_raw("kelda: the power button's interrupt cannot be routed\n");
}

void enable_generic_button() {
  const PowerInfo& power = g_machine.power;
  auto mapped = map_mmio(PhysAddr(power.event_device), 4);
  auto vector = register_interrupt(on_generic_event, nullptr);
  if (!mapped || !vector) return;
  g_event_select = static_cast<volatile std::uint32_t*>(*mapped);
  auto routed = route_gsi(power.event_gsi, *vector, 0, Trigger::kEdge, Polarity::kHigh);
  if (!routed) console_write_raw("kelda: the power button's interrupt cannot be routed\n");
}

}  // namespace

void init_power_button() {
  const PowerInfo& power = g_machine.power;
  g_sleep_control = map_register(power.sleep_control);
  g_reset_register = map_register(power.reset);
  if (power.reduced && power.event_device && power.event_gsi) enable_generic_button();
  if (!power.reduced && power.event_a) enable_fixed_button();
}

void set_power_button_handler(void (*handler)(void* context), void* context) {
  g_handler_context = context;
  g_handler.store(handler, std::memory_order_release);
}

void power_off() {
  const PowerInfo& power = g_machine.power;
  if (power.can_power_off && power.reduced) {
    constexpr std::uint8_t kEnable = 1u << 5;
    write_register(power.sleep_control, g_sleep_control, static_cast<std::uint8_t>(power.off_type_a << 2 | kEnable));
    wait_for_power_off();
  } else if (power.can_power_off && power.control_a) {
    if (power.control_b) out16(power.control_b, static_cast<std::uint16_t>(power.off_type_b << 10 | kSleepEnable));
    out16(power.control_a, static_cast<std::uint16_t>(power.off_type_a << 10 | kSleepEnable | kAcpiMode));
    wait_for_power_off();
  }
  triple_fault();
}

void exit_vm(int code) {
  asm volatile("cli");
  // isa-debug-exit reads as zero; a port that nobody drives reads as ones.
  if (in8(kDebugExitPort) == 0) {
    // One more than the code: what QEMU makes of 0 is also how it reports that it could not start.
    const int told = code < 0 || code > kHighestExitCode ? kHighestExitCode : code;
    out8(kDebugExitPort, static_cast<std::uint8_t>(told + 1));
    wait_for_power_off();
  }
  power_off();
}

void reset_vm() {
  asm volatile("cli");
  write_register(g_machine.power.reset, g_reset_register, g_machine.power.reset_value);
  out8(0x64, 0xfe);  // keyboard controller: pulse the reset line
  for (int i = 0; i < 1'000'000; ++i) pause();
  triple_fault();
}

}  // namespace kelda::kernel
