// Intel MultiProcessor Specification 1.4, chapter 4: CPUs and I/O APICs of machines without ACPI (microvm, acpi=off).
#include <cstring>

#include "kernel/machine_info.h"

namespace kelda::kernel {

namespace {

template <class T>
T field(const std::uint8_t* at, std::size_t offset) {
  T value;
  std::memcpy(&value, at + offset, sizeof value);
  return value;
}

// The floating pointer "_MP_", on a 16-byte boundary; returns the table it points at.
std::uint64_t find_table(FirmwareView view, std::uint64_t begin, std::uint64_t end) {
  for (std::uint64_t address = begin; address < end; address += 16) {
    const std::uint8_t* at = view(address, 16);
    if (at && std::memcmp(at, "_MP_", 4) == 0) return field<std::uint32_t>(at, 4);
  }
  return 0;
}

}  // namespace

bool read_mp_table(FirmwareView view) {
  std::uint64_t address = find_table(view, 0x9fc00, 0xa0000);
  if (!address) address = find_table(view, 0xe0000, 0x100000);
  const std::uint8_t* table = address ? view(address, 44) : nullptr;
  if (!table || std::memcmp(table, "PCMP", 4) != 0) return false;
  auto length = field<std::uint16_t>(table, 4);
  table = view(address, length);
  if (!table) return false;
  // By length: some firmware leaves the entry count at zero.
  for (std::size_t at = 44; at + 8 <= length;) {
    const std::uint8_t* entry = table + at;
    constexpr std::uint8_t kProcessor = 0, kIoApic = 2, kEnabled = 1;
    if (entry[0] == kProcessor && (entry[3] & kEnabled)) add_cpu(entry[1]);
    if (entry[0] == kIoApic && (entry[3] & kEnabled)) add_io_apic(field<std::uint32_t>(entry, 4), 0);
    at += entry[0] == kProcessor ? 20 : 8;
  }
  return true;
}

}  // namespace kelda::kernel
