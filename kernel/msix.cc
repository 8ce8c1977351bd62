// Entry of the table, 16 bytes:  0 address low | 4 address high | 8 data | 12 control (bit 0: masked)
#include "kernel/msix.h"

#include <fmt/format.h>

namespace kelda::kernel {
namespace {
constexpr std::uint16_t kEnable = 1 << 15, kMaskAll = 1 << 14, kSizeMask = 0x7ff;
constexpr std::uint32_t kMasked = 1;
}  // namespace

Result<MsixTable> MsixTable::enable(const PciFunction& function) {
  std::optional<std::uint8_t> capability = function.find_capability(pci::kCapMsix);
  if (!capability) return Error(Code::kUnsupported, fmt::format("pci {}: no MSI-X", function.where.to_string()));
  std::uint16_t control = pci_read16(function.where, *capability + 2);
  std::uint16_t size = (control & kSizeMask) + 1;
  std::uint32_t place = pci_read32(function.where, *capability + 4);
  MsixTable table(TRY(function.map_bar(place & 7, place & ~std::uint32_t{7}, size * 16u)), size);
  pci_write16(function.where, *capability + 2, control | kEnable | kMaskAll);
  for (std::uint16_t i = 0; i < size; ++i) table.word(i, 3) = kMasked;
  pci_write16(function.where, *capability + 2, (control & ~kMaskAll) | kEnable);
  return table;
}

Result<> MsixTable::set(std::uint16_t index, Vector vector, std::uint32_t cpu) {
  if (index >= size_) return Error(Code::kBusy, fmt::format("MSI-X table full: entry {} of {}", index, size_));
  MsiMessage message = msi_message(vector, cpu);
  word(index, 3) = kMasked;
  word(index, 0) = static_cast<std::uint32_t>(message.address);
  word(index, 1) = static_cast<std::uint32_t>(message.address >> 32);
  word(index, 2) = message.data;
  word(index, 3) = 0;
  return {};
}

}  // namespace kelda::kernel
