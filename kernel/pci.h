// PCI (Local Bus 3.0, Express Base 3.0): finding functions, their capabilities and their registers in memory.
//
// Contract: pci_scan() once, on one CPU, at start. Afterwards a PciFunction may be used by its one driver.
// Configuration space is reached through ECAM where ACPI tells of it, else through ports 0xcf8/0xcfc; a machine that
// answers to neither has no PCI devices. Normally the firmware has assigned base addresses; where it has not,
// pci_assign_bars() does.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"
#include "common/types.h"

namespace kelda::kernel {

struct PciAddress {
  std::uint8_t bus = 0, device = 0, function = 0;
  std::string to_string() const;
};

std::uint32_t pci_read32(PciAddress where, std::uint16_t offset);
void pci_write32(PciAddress where, std::uint16_t offset, std::uint32_t value);
std::uint16_t pci_read16(PciAddress where, std::uint16_t offset);
std::uint8_t pci_read8(PciAddress where, std::uint16_t offset);
void pci_write16(PciAddress where, std::uint16_t offset, std::uint16_t value);

namespace pci {
// Offsets and bits of the configuration header.
inline constexpr std::uint16_t kVendor = 0x00, kDevice = 0x02, kCommand = 0x04, kStatus = 0x06, kClass = 0x08,
                               kHeaderType = 0x0e, kBar0 = 0x10, kSecondaryBus = 0x19, kSubsystem = 0x2e,
                               kCapabilities = 0x34;
inline constexpr std::uint16_t kCommandMemory = 1 << 1, kCommandBusMaster = 1 << 2, kCommandNoIntx = 1 << 10;
inline constexpr std::uint16_t kStatusHasCapabilities = 1 << 4;
inline constexpr std::uint8_t kCapMsix = 0x11, kCapVendor = 0x09;
}  // namespace pci

// A base address register that leads to memory.
struct PciBar {
  PhysAddr address;               // 0: unassigned, not there, or I/O ports
  std::uint64_t size_bytes = 0;   // 0: not probed, or not there
  bool is_64_bit = false;
};

struct PciFunction {
  PciAddress where;
  std::uint16_t vendor = 0, device = 0;
  PciBar bars[6];

  // Does it answer in memory? Firmware switches that on once it has assigned addresses.
  bool decodes_memory() const;
  // Offset of the next capability with this id behind `after` (0: from the start); nothing when there is none.
  std::optional<std::uint8_t> find_capability(std::uint8_t id, std::uint8_t after = 0) const;
  // Answers in memory and may act as a bus master from now on; wired interrupts off.
  void enable() const;
  // Registers [offset, offset + size_bytes) of a memory BAR. kCorrupt when the function has no such registers.
  Result<volatile std::byte*> map_bar(unsigned bar, std::uint64_t offset, std::uint64_t size_bytes) const;
};

// All functions of all buses that bridges lead to.
std::vector<PciFunction> pci_scan();

// Reads the base addresses as they are.
void pci_read_bars(PciFunction& function);
// Probes how large the registers of all functions are and gives addresses to those that have none (pci_bars.cc). Costs
// a change of the memory map for each function: for machines that need it.
void pci_assign_bars(std::vector<PciFunction>& functions);

}  // namespace kelda::kernel
