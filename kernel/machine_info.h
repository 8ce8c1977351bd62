// What firmware tables say, in one place: filled once at boot by acpi.cc or mp_table.cc. Private to kernel/.
#pragma once

#include <cstdint>

#include "kernel/acpi.h"
#include "kernel/cpu.h"
#include "kernel/interrupts.h"
#include "kernel/start_info.h"

namespace kelda::kernel {

inline constexpr std::uint32_t kMaxIoApics = 4;
inline constexpr std::uint32_t kMaxMmioSlots = 64;

struct IoApicInfo {
  std::uint64_t address;
  std::uint32_t first_gsi;
};

struct IsaLine {
  std::uint32_t gsi;
  Trigger trigger = Trigger::kEdge;
  Polarity polarity = Polarity::kHigh;
};

// A register as ACPI describes it (generic address structure), resolved to something that can be written.
struct Register {
  enum class Space : std::uint8_t { kNone, kMemory, kPort };
  Space space = Space::kNone;
  std::uint64_t address = 0;
};

struct PowerInfo {
  // Fixed hardware (q35, pc): port blocks; 0 when absent.
  std::uint16_t event_a = 0, control_a = 0, control_b = 0;
  std::uint8_t event_bytes = 0;
  std::uint16_t smi_command = 0;
  std::uint8_t acpi_enable = 0;
  std::uint32_t sci_irq = 0;
  // Reduced hardware (microvm).
  bool reduced = false;
  Register sleep_control;
  std::uint64_t event_device = 0;  // generic event device's selector register
  std::uint32_t event_gsi = 0;
  // Both.
  std::uint8_t off_type_a = 0, off_type_b = 0;
  bool can_power_off = false;
  Register reset;
  std::uint8_t reset_value = 0;
};

// Where QEMU's real-time clock keeps the century, also on microvm, whose tables do not say.
inline constexpr std::uint8_t kUsualCenturyRegister = 0x32;

struct MachineInfo {
  std::uint32_t apic_ids[kMaxCpus] = {};
  std::uint32_t cpu_count = 0;
  IoApicInfo io_apics[kMaxIoApics] = {};
  std::uint32_t io_apic_count = 0;
  IsaLine isa_lines[16] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9}, {10}, {11}, {12}, {13}, {14}, {15}};
  PowerInfo power;
  std::uint8_t century_register = kUsualCenturyRegister;  // of the CMOS clock
  bool has_pci_config = false;
  PciConfigSpace pci_config{};
  VirtioMmioSlot mmio_slots[kMaxMmioSlots] = {};
  std::uint32_t mmio_slot_count = 0;
};

extern MachineInfo g_machine;

// Adds a CPU that may be started; those over kMaxCpus are left alone.
void add_cpu(std::uint32_t apic_id);
void add_io_apic(std::uint64_t address, std::uint32_t first_gsi);

// `size_bytes` of the machine's memory from `address` on, or null where nothing is. What tables say of themselves is not
// trusted: nothing is read beyond what was asked for.
using FirmwareView = const std::uint8_t* (*)(std::uint64_t address, std::size_t size_bytes);
const std::uint8_t* firmware_view(std::uint64_t address, std::size_t size_bytes);

// acpi.cc: false when there are no tables. mp_table.cc: likewise. aml.cc: what can be found without an interpreter.
bool read_acpi_tables(const StartInfo& info, FirmwareView view);
bool read_mp_table(FirmwareView view);
void scan_aml(const std::uint8_t* code, std::size_t size_bytes);
// command_line.cc: virtio_mmio.device=SIZE@BASE:IRQ
void read_mmio_slots_from_command_line();

}  // namespace kelda::kernel
