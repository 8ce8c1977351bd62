// What the firmware says about the machine: ACPI tables (ACPI 6.5, chapter 5), the MP table where there is no ACPI.
//
// Contract: read once at boot, before the other CPUs start; constant afterwards.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "common/types.h"

namespace kelda::kernel {

// Memory-mapped PCI configuration space (MCFG): bus b, device d, function f at base + (b - start_bus << 20 | d << 15 |
// f << 12).
struct PciConfigSpace {
  PhysAddr base;
  std::uint16_t segment;
  std::uint8_t start_bus, end_bus;
};
// Absent on pc and microvm: there use ports 0xcf8/0xcfc, if anything answers.
std::optional<PciConfigSpace> pci_config_space();

// A virtio-mmio transport: from `virtio_mmio.device=` on the command line, else from the DSDT of QEMU's microvm. Slots
// may be empty: a device id of 0 at offset 8 says so.
struct VirtioMmioSlot {
  PhysAddr base;
  std::uint32_t size_bytes;
  std::uint32_t gsi;
};
std::span<const VirtioMmioSlot> virtio_mmio_slots();

// Called (in interrupt context, see interrupts.h) when the host presses the power button. Without a handler the machine
// powers off at once. Works on q35 and pc (fixed event) and on microvm with ACPI (generic event device).
void set_power_button_handler(void (*handler)(void* context), void* context);

}  // namespace kelda::kernel
