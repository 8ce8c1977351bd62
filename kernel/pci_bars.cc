// Base address registers: where they lead, and a place for those that lead nowhere yet.
//
// Firmware normally assigns them. Hypervisors that start the guest without any leave that to us. Which hole below 4 GiB
// leads to PCI is written in AML, which we do not interpret; but [3 GiB, 3.5 GiB) does so on every hypervisor that speaks
// PVH (QEMU pc, q35, microvm; Cloud Hypervisor), less RAM that reaches into it, ECAM, and what is assigned already.
// Functions behind a bridge are left alone: their window would have to be opened as well.
#include <algorithm>

#include "kernel/acpi.h"
#include "kernel/paging.h"
#include "kernel/pci.h"

namespace kelda::kernel {
namespace {

constexpr std::uint64_t kWindowStart = 0xc000'0000, kWindowEnd = 0xe000'0000;
constexpr std::uint32_t kBarIsPorts = 1, kBarTypeMask = 6, kBarType64 = 4, kBarAddressMask = ~std::uint32_t{0xf};

std::uint16_t register_of(unsigned index) { return static_cast<std::uint16_t>(pci::kBar0 + 4 * index); }

// What the register reads back after all ones were written: the address bits it implements.
std::uint32_t implemented_bits(PciAddress where, std::uint16_t offset) {
  std::uint32_t before = pci_read32(where, offset);
  pci_write32(where, offset, 0xffff'ffff);
  std::uint32_t bits = pci_read32(where, offset);
  pci_write32(where, offset, before);
  return bits;
}

struct Range {
  std::uint64_t start, end;
};

bool is_ram(std::uint64_t start, std::uint64_t end) {
  // The identity map holds exactly the RAM; RAM comes in pieces of a MiB and more this high up.
  for (std::uint64_t at = start; at < end; at += 1_MiB) {
    if (translate(reinterpret_cast<const void*>(at))) return true;
  }
  return translate(reinterpret_cast<const void*>(end - kPageBytes)).has_value();
}

std::vector<Range> taken_ranges(const std::vector<PciFunction>& functions) {
  std::vector<Range> taken;
  if (std::optional<PciConfigSpace> space = pci_config_space()) {
    std::uint64_t bus_count = std::uint64_t{space->end_bus} - space->start_bus + 1;
    taken.push_back({space->base.value, space->base.value + bus_count * 1_MiB});
  }
  for (const PciFunction& function : functions) {
    for (const PciBar& bar : function.bars) {
      if (bar.address.value != 0) taken.push_back({bar.address.value, bar.address.value + bar.size_bytes});
    }
  }
  return taken;
}

// The lowest free place for `size_bytes` (a power of two), naturally aligned; 0 when there is none.
std::uint64_t find_place(std::uint64_t size_bytes, const std::vector<Range>& taken) {
  std::uint64_t step = std::max<std::uint64_t>(size_bytes, kPageBytes);
  for (std::uint64_t at = round_up(kWindowStart, step); at + step <= kWindowEnd; at += step) {
    bool clash = std::any_of(taken.begin(), taken.end(), [&](Range r) { return at < r.end && r.start < at + step; });
    if (!clash && !is_ram(at, at + step)) return at;
  }
  return 0;
}

void write_address(PciFunction& function, unsigned index, std::uint64_t address) {
  std::uint16_t offset = register_of(index);
  pci_write32(function.where, offset, static_cast<std::uint32_t>(address));
  if (function.bars[index].is_64_bit) pci_write32(function.where, offset + 4, static_cast<std::uint32_t>(address >> 32));
  function.bars[index].address = PhysAddr(address);
}

// Memory decoding is off meanwhile: a half-written address must not answer.
void probe_sizes(PciFunction& function) {
  std::uint16_t command = pci_read16(function.where, pci::kCommand);
  pci_write16(function.where, pci::kCommand, command & ~(pci::kCommandMemory | 1));
  for (unsigned i = 0; i < 6; ++i) {
    PciBar& bar = function.bars[i];
    std::uint16_t offset = register_of(i);
    if ((pci_read32(function.where, offset) & kBarIsPorts) != 0) continue;
    std::uint64_t bits = implemented_bits(function.where, offset) & kBarAddressMask;
    if (bar.is_64_bit) {
      bits |= std::uint64_t{implemented_bits(function.where, offset + 4)} << 32;
      ++i;
    } else if (bits != 0) {
      bits |= 0xffff'ffff'0000'0000;
    }
    bar.size_bytes = bits == 0 ? 0 : ~bits + 1;
  }
  pci_write16(function.where, pci::kCommand, command);
}

}  // namespace

void pci_read_bars(PciFunction& function) {
  for (unsigned i = 0; i < 6; ++i) {
    std::uint32_t low = pci_read32(function.where, register_of(i));
    if ((low & kBarIsPorts) != 0) continue;
    PciBar& bar = function.bars[i];
    bar.is_64_bit = (low & kBarTypeMask) == kBarType64 && i < 5;
    std::uint64_t address = low & kBarAddressMask;
    if (bar.is_64_bit) address |= std::uint64_t{pci_read32(function.where, register_of(++i))} << 32;
    bar.address = PhysAddr(address);
  }
}

void pci_assign_bars(std::vector<PciFunction>& functions) {
  for (PciFunction& function : functions) probe_sizes(function);
  std::vector<Range> taken = taken_ranges(functions);
  for (PciFunction& function : functions) {
    if (function.where.bus != 0) continue;
    for (unsigned i = 0; i < 6; ++i) {
      PciBar& bar = function.bars[i];
      if (bar.size_bytes == 0 || bar.address.value != 0) continue;
      std::uint64_t place = find_place(bar.size_bytes, taken);
      if (place == 0) continue;  // map_bar() of the driver that needs it says so
      write_address(function, i, place);
      taken.push_back({place, place + bar.size_bytes});
    }
  }
}

}  // namespace kelda::kernel
