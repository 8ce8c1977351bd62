#include "kernel/pci.h"

#include <fmt/format.h>

#include <array>

#include "common/assert.h"
#include "kernel/acpi.h"
#include "kernel/cpu.h"
#include "kernel/paging.h"

namespace kelda::kernel {
namespace {

constexpr std::uint16_t kAddressPort = 0xcf8, kDataPort = 0xcfc;
constexpr std::uint32_t kNothing = 0xffff'ffff;
constexpr std::size_t kBusBytes = 1_MiB;  // of ECAM

void out32(std::uint16_t port, std::uint32_t value) { asm volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }
std::uint32_t in32(std::uint16_t port) {
  std::uint32_t value;
  asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

std::uint32_t port_address(PciAddress where, std::uint16_t offset) {
  return 0x8000'0000u | where.bus << 16 | where.device << 11 | where.function << 8 | (offset & 0xfc);
}

// The registers of a bus in ECAM, mapped when first asked for: a bus costs a megabyte of entries.
volatile std::byte* ecam_bus(const PciConfigSpace& space, std::uint8_t bus) {
  static constinit std::array<volatile std::byte*, 256> mapped{};
  if (mapped[bus] == nullptr) {
    Result<volatile void*> fresh = map_mmio(PhysAddr(space.base.value + (bus - space.start_bus) * kBusBytes), kBusBytes);
    if (fresh) mapped[bus] = static_cast<volatile std::byte*>(*fresh);
  }
  return mapped[bus];
}

// The register of ECAM, or null where ECAM does not reach.
volatile std::uint32_t* ecam_register(PciAddress where, std::uint16_t offset) {
  std::optional<PciConfigSpace> space = pci_config_space();
  if (!space || where.bus < space->start_bus || where.bus > space->end_bus) return nullptr;
  volatile std::byte* bus = ecam_bus(*space, where.bus);
  if (bus == nullptr) return nullptr;
  std::size_t in_bus = std::size_t{where.device} << 15 | std::size_t{where.function} << 12 | (offset & 0xffc);
  return reinterpret_cast<volatile std::uint32_t*>(bus + in_bus);
}

void scan_bus(std::uint8_t bus, unsigned depth, std::vector<PciFunction>& found);

void scan_function(PciAddress where, unsigned depth, std::vector<PciFunction>& found) {
  std::uint32_t id = pci_read32(where, pci::kVendor);
  if (id == kNothing || id == 0) return;
  std::uint8_t type = pci_read8(where, pci::kHeaderType) & 0x7f;
  if (type == 1) {
    std::uint8_t behind = pci_read8(where, pci::kSecondaryBus);
    // Bus numbers rise on the way down; anything else is a bridge that nobody has set up.
    if (behind > where.bus) scan_bus(behind, depth + 1, found);
  }
  if (type != 0) return;
  PciFunction function;
  function.where = where;
  function.vendor = static_cast<std::uint16_t>(id);
  function.device = static_cast<std::uint16_t>(id >> 16);
  found.push_back(function);
}

void scan_bus(std::uint8_t bus, unsigned depth, std::vector<PciFunction>& found) {
  if (depth > 8) return;
  for (std::uint8_t device = 0; device < 32; ++device) {
    PciAddress where{bus, device, 0};
    if (pci_read32(where, pci::kVendor) == kNothing) continue;
    unsigned functions = (pci_read8(where, pci::kHeaderType) & 0x80) != 0 ? 8 : 1;
    for (where.function = 0; where.function < functions; ++where.function) scan_function(where, depth, found);
  }
}

}  // namespace

std::string PciAddress::to_string() const { return fmt::format("{:02x}:{:02x}.{}", bus, device, function); }

std::uint32_t pci_read32(PciAddress where, std::uint16_t offset) {
  if (volatile std::uint32_t* reg = ecam_register(where, offset)) return *reg;
  InterruptsOff guard;  // address and data port belong together
  out32(kAddressPort, port_address(where, offset));
  return in32(kDataPort);
}

void pci_write32(PciAddress where, std::uint16_t offset, std::uint32_t value) {
  if (volatile std::uint32_t* reg = ecam_register(where, offset)) {
    *reg = value;
    return;
  }
  InterruptsOff guard;
  out32(kAddressPort, port_address(where, offset));
  out32(kDataPort, value);
}

std::uint16_t pci_read16(PciAddress where, std::uint16_t offset) {
  return static_cast<std::uint16_t>(pci_read32(where, offset) >> (offset & 2) * 8);
}

std::uint8_t pci_read8(PciAddress where, std::uint16_t offset) {
  return static_cast<std::uint8_t>(pci_read32(where, offset) >> (offset & 3) * 8);
}

void pci_write16(PciAddress where, std::uint16_t offset, std::uint16_t value) {
  unsigned shift = (offset & 2) * 8;
  std::uint32_t word = pci_read32(where, offset) & ~(0xffffu << shift);
  // The status half of word 4 clears the bits that are written as ones: leave them alone.
  if ((offset & 0xfc) == pci::kCommand && shift == 0) word &= 0xffff;
  pci_write32(where, offset, word | std::uint32_t{value} << shift);
}

std::optional<std::uint8_t> PciFunction::find_capability(std::uint8_t id, std::uint8_t after) const {
  if ((pci_read16(where, pci::kStatus) & pci::kStatusHasCapabilities) == 0) return std::nullopt;
  std::uint8_t at = pci_read8(where, after != 0 ? after + 1 : std::uint16_t{pci::kCapabilities}) & 0xfc;
  // 48 capabilities fill the space: a longer chain runs in circles.
  for (int i = 0; i < 48 && at >= 0x40; ++i) {
    if (pci_read8(where, at) == id) return at;
    at = pci_read8(where, at + 1) & 0xfc;
  }
  return std::nullopt;
}

bool PciFunction::decodes_memory() const { return (pci_read16(where, pci::kCommand) & pci::kCommandMemory) != 0; }

void PciFunction::enable() const {
  std::uint16_t command = pci_read16(where, pci::kCommand);
  pci_write16(where, pci::kCommand, command | pci::kCommandMemory | pci::kCommandBusMaster | pci::kCommandNoIntx);
}

Result<volatile std::byte*> PciFunction::map_bar(unsigned bar, std::uint64_t offset, std::uint64_t size_bytes) const {
  if (bar >= 6 || bars[bar].address.value == 0) {
    return Error(Code::kCorrupt, fmt::format("pci {}: base address register {} leads nowhere", where.to_string(), bar));
  }
  // The length is known only where it had to be probed.
  std::uint64_t length = bars[bar].size_bytes;
  if (offset + size_bytes < offset || (length != 0 && offset + size_bytes > length)) {
    return Error(Code::kCorrupt, fmt::format("pci {}: registers {:#x}+{:#x} lie outside BAR {}", where.to_string(), offset, size_bytes, bar));
  }
  volatile void* mapped = TRY(map_mmio(PhysAddr(bars[bar].address.value + offset), size_bytes));
  return static_cast<volatile std::byte*>(mapped);
}

std::vector<PciFunction> pci_scan() {
  std::vector<PciFunction> found;
  scan_bus(0, 0, found);
  for (PciFunction& function : found) pci_read_bars(function);
  return found;
}

}  // namespace kelda::kernel
