#include "kernel/io_apic.h"

#include "kernel/cpu_state.h"
#include "kernel/interrupts.h"
#include "kernel/machine.h"
#include "kernel/machine_info.h"
#include "kernel/paging.h"
#include "kernel/spinlock.h"

namespace kelda::kernel {

namespace {

// Registers through an index and a data window (82093AA data sheet).
struct Chip {
  volatile std::uint32_t* window = nullptr;
  std::uint32_t first_gsi = 0, pin_count = 0;

  std::uint32_t read(std::uint32_t reg) const {
    window[0] = reg;
    return window[4];
  }
  void write(std::uint32_t reg, std::uint32_t value) const {
    window[0] = reg;
    window[4] = value;
  }
};

constexpr std::uint32_t kVersion = 1, kRedirection = 0x10;
constexpr std::uint32_t kMasked = 1u << 16, kLevel = 1u << 15, kActiveLow = 1u << 13;

constinit Chip g_chips[kMaxIoApics];
constinit std::uint32_t g_chip_count = 0;
constinit SpinLock g_lock;

void mask_8259s() {
  // Moved away from the exception vectors first: a spurious interrupt cannot be masked.
  out8(0x20, 0x11);
  out8(0xa0, 0x11);
  out8(0x21, 32);
  out8(0xa1, 40);
  out8(0x21, 4);
  out8(0xa1, 2);
  out8(0x21, 1);
  out8(0xa1, 1);
  out8(0x21, 0xff);
  out8(0xa1, 0xff);
}

}  // namespace

void init_io_apics() {
  mask_8259s();
  for (std::uint32_t i = 0; i < g_machine.io_apic_count; ++i) {
    auto window = map_mmio(PhysAddr(g_machine.io_apics[i].address), 32);
    if (!window) continue;
    Chip& chip = g_chips[g_chip_count++];
    chip.window = static_cast<volatile std::uint32_t*>(*window);
    chip.first_gsi = g_machine.io_apics[i].first_gsi;
    chip.pin_count = (chip.read(kVersion) >> 16 & 0xff) + 1;
    // Pins are masked after reset, and firmware leaves them so.
  }
}

Result<> route_gsi(std::uint32_t gsi, Vector vector, std::uint32_t cpu, Trigger trigger, Polarity polarity) {
  for (std::uint32_t i = 0; i < g_chip_count; ++i) {
    const Chip& chip = g_chips[i];
    if (gsi < chip.first_gsi || gsi - chip.first_gsi >= chip.pin_count) continue;
    std::uint32_t reg = kRedirection + 2 * (gsi - chip.first_gsi);
    LockGuard guard(g_lock);
    chip.write(reg, kMasked);
    chip.write(reg + 1, g_cpus[cpu].apic_id << 24);
    chip.write(reg, vector | (trigger == Trigger::kLevel ? kLevel : 0) | (polarity == Polarity::kLow ? kActiveLow : 0));
    return {};
  }
  return Code::kUnsupported;
}

std::uint32_t gsi_of_isa_irq(std::uint8_t irq) {
  return irq < 16 ? g_machine.isa_lines[irq].gsi : irq;
}

}  // namespace kelda::kernel
