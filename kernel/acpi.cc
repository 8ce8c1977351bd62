// ACPI's static tables (ACPI 6.5, 5.2). Fields are read by their offset in the specification.
#include "kernel/acpi.h"

#include <cstring>

#include "kernel/internal.h"
#include "kernel/machine_info.h"

namespace kelda::kernel {

constinit MachineInfo g_machine;

namespace {

constexpr std::size_t kHeaderBytes = 36;

template <class T>
T field(const std::uint8_t* table, std::size_t offset) {
  T value;
  std::memcpy(&value, table + offset, sizeof value);
  return value;
}

bool is_named(const std::uint8_t* at, const char* name, std::size_t length) {
  return std::memcmp(at, name, length) == 0;
}

// A whole table, checked; null when it is not one.
const std::uint8_t* table_at(FirmwareView view, std::uint64_t address) {
  const std::uint8_t* header = view(address, kHeaderBytes);
  if (!header) return nullptr;
  auto length = field<std::uint32_t>(header, 4);
  if (length < kHeaderBytes || length > 1_MiB) return nullptr;
  const std::uint8_t* table = view(address, length);
  std::uint8_t sum = 0;
  for (std::uint32_t i = 0; table && i < length; ++i) sum = static_cast<std::uint8_t>(sum + table[i]);
  return sum == 0 ? table : nullptr;
}

std::uint32_t table_length(const std::uint8_t* table) {
  return field<std::uint32_t>(table, 4);
}

void read_source_override(const std::uint8_t* entry) {
  auto irq = entry[3];
  if (irq >= 16) return;
  auto flags = field<std::uint16_t>(entry, 8);
  g_machine.isa_lines[irq] = {field<std::uint32_t>(entry, 4), (flags >> 2 & 3) == 3 ? Trigger::kLevel : Trigger::kEdge,
                              (flags & 3) == 3 ? Polarity::kLow : Polarity::kHigh};
}

// Interrupt controllers (5.2.12).
void read_madt(const std::uint8_t* madt) {
  constexpr std::uint32_t kUsable = 1;  // enabled; "online capable" ones are hot-plugged later
  constexpr std::uint8_t kEntryBytes[] = {8, 12, 10, 0, 0, 0, 0, 0, 0, 16};
  const std::uint32_t length = table_length(madt);
  for (std::uint32_t at = 44; at + 2 <= length && madt[at + 1] >= 2; at += madt[at + 1]) {
    const std::uint8_t* entry = madt + at;
    if (at + entry[1] > length) return;
    if (entry[0] < sizeof kEntryBytes && entry[1] < kEntryBytes[entry[0]]) continue;
    switch (entry[0]) {
      case 0:
        if (field<std::uint32_t>(entry, 4) & kUsable) add_cpu(entry[3]);
        break;
      case 1:
        add_io_apic(field<std::uint32_t>(entry, 4), field<std::uint32_t>(entry, 8));
        break;
      case 2:
        read_source_override(entry);
        break;
      case 9:
        if (field<std::uint32_t>(entry, 8) & kUsable) add_cpu(field<std::uint32_t>(entry, 4));
        break;
      default:
        break;
    }
  }
}

Register read_address(const std::uint8_t* at) {
  auto address = field<std::uint64_t>(at, 4);
  if (address == 0 || at[0] > 1) return {};
  return {at[0] == 0 ? Register::Space::kMemory : Register::Space::kPort, address};
}

// Fixed description (5.2.9).
void read_fadt(FirmwareView view, const std::uint8_t* fadt) {
  constexpr std::uint32_t kResetSupported = 1u << 10, kHardwareReduced = 1u << 20;
  PowerInfo& power = g_machine.power;
  std::uint32_t length = table_length(fadt);
  if (length < 116) return;  // as long as in ACPI 1.0
  auto flags = field<std::uint32_t>(fadt, 112);
  power.sci_irq = field<std::uint16_t>(fadt, 46);
  power.smi_command = field<std::uint16_t>(fadt, 48);
  power.acpi_enable = fadt[52];
  power.event_a = field<std::uint16_t>(fadt, 56);
  power.control_a = field<std::uint16_t>(fadt, 64);
  power.control_b = field<std::uint16_t>(fadt, 68);
  power.event_bytes = fadt[88];
  if (fadt[108] != 0 && fadt[108] < 0x80) g_machine.century_register = fadt[108];
  power.reduced = flags & kHardwareReduced;
  if ((flags & kResetSupported) && length >= 129) {
    power.reset = read_address(fadt + 116);
    power.reset_value = fadt[128];
  }
  if (power.reduced && length >= 256) power.sleep_control = read_address(fadt + 244);
  std::uint64_t dsdt_address = length >= 148 ? field<std::uint64_t>(fadt, 140) : 0;
  if (!dsdt_address) dsdt_address = field<std::uint32_t>(fadt, 40);
  if (const std::uint8_t* dsdt = table_at(view, dsdt_address))
    scan_aml(dsdt + kHeaderBytes, table_length(dsdt) - kHeaderBytes);
}

// PCI configuration space (PCI firmware specification, 4.1.2); the first segment is the one that is used.
void read_mcfg(const std::uint8_t* mcfg) {
  if (table_length(mcfg) < 60) return;
  g_machine.pci_config = {PhysAddr(field<std::uint64_t>(mcfg, 44)), field<std::uint16_t>(mcfg, 52), mcfg[54], mcfg[55]};
  g_machine.has_pci_config = true;
}

void read_table(FirmwareView view, std::uint64_t address) {
  const std::uint8_t* table = table_at(view, address);
  if (!table) return;
  if (is_named(table, "APIC", 4)) read_madt(table);
  if (is_named(table, "FACP", 4)) read_fadt(view, table);
  if (is_named(table, "MCFG", 4)) read_mcfg(table);
}

std::uint64_t find_rsdp(const StartInfo& info, FirmwareView view) {
  if (info.rsdp) return info.rsdp;
  for (std::uint64_t address = 0xe0000; address < 0x100000; address += 16) {
    const std::uint8_t* at = view(address, 8);
    if (at && is_named(at, "RSD PTR ", 8)) return address;
  }
  return 0;
}

}  // namespace

void add_cpu(std::uint32_t apic_id) {
  if (g_machine.cpu_count < kMaxCpus) g_machine.apic_ids[g_machine.cpu_count++] = apic_id;
}

void add_io_apic(std::uint64_t address, std::uint32_t first_gsi) {
  if (g_machine.io_apic_count < kMaxIoApics) g_machine.io_apics[g_machine.io_apic_count++] = {address, first_gsi};
}

bool read_acpi_tables(const StartInfo& info, FirmwareView view) {
  std::uint64_t address = find_rsdp(info, view);
  const std::uint8_t* rsdp = address ? view(address, 36) : nullptr;
  if (!rsdp || !is_named(rsdp, "RSD PTR ", 8)) return false;
  bool wide = rsdp[15] >= 2 && field<std::uint64_t>(rsdp, 24) != 0;
  const std::uint8_t* root = table_at(view, wide ? field<std::uint64_t>(rsdp, 24) : field<std::uint32_t>(rsdp, 16));
  if (!root) return false;
  std::size_t entry_bytes = wide ? 8 : 4;
  for (std::size_t at = kHeaderBytes; at + entry_bytes <= table_length(root); at += entry_bytes) {
    read_table(view, wide ? field<std::uint64_t>(root, at) : field<std::uint32_t>(root, at));
  }
  return true;
}

}  // namespace kelda::kernel
