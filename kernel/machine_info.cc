// What is known of the machine: the firmware's tables, read where they lie (through the identity map, else mapped for the
// purpose), and what the layers above ask of them.
#include "kernel/acpi.h"
#include "kernel/internal.h"
#include "kernel/machine_info.h"
#include "kernel/tables.h"

namespace kelda::kernel {

const std::uint8_t* firmware_view(std::uint64_t address, std::size_t size_bytes) {
  if (size_bytes == 0 || address == 0) return nullptr;
  if (find_mapping(address).entry && find_mapping(address + size_bytes - 1).entry) {
    return reinterpret_cast<const std::uint8_t*>(address);
  }
  auto view = map_mmio(PhysAddr(address), size_bytes);
  return view ? const_cast<const std::uint8_t*>(static_cast<volatile std::uint8_t*>(*view)) : nullptr;
}

void init_acpi(const StartInfo& info) {
  if (!read_acpi_tables(info, firmware_view) || g_machine.cpu_count == 0) read_mp_table(firmware_view);
  if (g_machine.mmio_slot_count == 0) read_mmio_slots_from_command_line();
}

std::optional<PciConfigSpace> pci_config_space() {
  if (!g_machine.has_pci_config) return std::nullopt;
  return g_machine.pci_config;
}

std::span<const VirtioMmioSlot> virtio_mmio_slots() {
  return {g_machine.mmio_slots, g_machine.mmio_slot_count};
}

}  // namespace kelda::kernel
