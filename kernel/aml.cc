// What is needed from ACPI's machine code, by pattern: a full interpreter would be larger than the rest of the kernel.
// The patterns are encodings of ACPI 6.5 chapter 20 and resource descriptors of 6.4, as hypervisors emit them.
#include <cstring>

#include "kernel/machine_info.h"

namespace kelda::kernel {

namespace {

struct Cursor {
  const std::uint8_t* at;
  const std::uint8_t* end;
  std::size_t left() const { return static_cast<std::size_t>(end - at); }
  bool starts_with(const char* bytes, std::size_t length) const {
    return left() >= length && std::memcmp(at, bytes, length) == 0;
  }
};

std::uint32_t read32(const std::uint8_t* at) {
  std::uint32_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// An integer constant: ZeroOp, OneOp or BytePrefix; advances the cursor.
std::uint8_t take_integer(Cursor& cursor) {
  if (cursor.left() == 0) return 0;
  if (cursor.left() >= 2 && *cursor.at == 0x0a) {
    cursor.at += 2;
    return cursor.at[-1];
  }
  std::uint8_t value = *cursor.at <= 1 ? *cursor.at : 0;
  ++cursor.at;
  return value;
}

// Name(_S5_, Package(){a, b, ...}): the sleep types of power-off.
void read_power_off(Cursor cursor) {
  cursor.at += 4;
  if (cursor.left() < 8 || *cursor.at != 0x12) return;
  ++cursor.at;
  cursor.at += 1 + (*cursor.at >> 6);  // package length
  ++cursor.at;                         // element count
  g_machine.power.off_type_a = take_integer(cursor);
  g_machine.power.off_type_b = take_integer(cursor);
  g_machine.power.can_power_off = true;
}

// The first interrupt (extended, 6.4.3.6) after `cursor`, within the device's resources.
std::uint32_t find_interrupt(Cursor cursor) {
  constexpr std::size_t kSearchBytes = 128;
  for (std::size_t i = 0; i < kSearchBytes && cursor.left() >= 9; ++i, ++cursor.at) {
    if (cursor.at[0] == 0x89 && cursor.at[1] == 6 && cursor.at[2] == 0 && cursor.at[4] == 1)
      return read32(cursor.at + 5);
  }
  return 0;
}

// A virtio-mmio device: 32-bit fixed memory range (6.4.3.4), then its interrupt.
void read_virtio_device(Cursor cursor) {
  constexpr std::size_t kSearchBytes = 64;
  for (std::size_t i = 0; i < kSearchBytes && cursor.left() >= 12; ++i, ++cursor.at) {
    if (cursor.at[0] != 0x86 || cursor.at[1] != 9 || cursor.at[2] != 0) continue;
    if (g_machine.mmio_slot_count == kMaxMmioSlots) return;
    g_machine.mmio_slots[g_machine.mmio_slot_count++] = {PhysAddr(read32(cursor.at + 4)), read32(cursor.at + 8),
                                                         find_interrupt(cursor)};
    return;
  }
}

// OperationRegion(EREG, SystemMemory, base, ...) of the generic event device: its event selector.
void read_event_region(Cursor cursor) {
  if (cursor.left() < 10 || cursor.at[4] != 0 || cursor.at[5] != 0x0c) return;
  g_machine.power.event_device = read32(cursor.at + 6);
}

}  // namespace

void scan_aml(const std::uint8_t* code, std::size_t size_bytes) {
  for (Cursor cursor{code, code + size_bytes}; cursor.left() >= 8; ++cursor.at) {
    if (cursor.starts_with("_S5_", 4)) read_power_off(cursor);
    if (cursor.starts_with("LNRO0005", 8)) read_virtio_device(cursor);
    if (cursor.starts_with("ACPI0013", 8)) g_machine.power.event_gsi = find_interrupt(cursor);
    if (cursor.starts_with("EREG", 4) && g_machine.power.event_device == 0) read_event_region(cursor);
  }
}

}  // namespace kelda::kernel
