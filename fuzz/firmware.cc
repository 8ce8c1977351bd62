// What the machine says of itself at boot: ACPI and MP tables of any content, in a memory of which only a part is there.
// Nothing is read outside of that part, and reading ends.
#include <algorithm>
#include <vector>

#include "common/assert.h"
#include "fuzz/fuzz_target.h"
#include "fuzz/input.h"
#include "kernel/machine_info.h"

namespace kelda::fuzz {

namespace {

constexpr std::uint64_t kBase = 0xe0000;
constexpr std::size_t kMemoryBytes = 4096;

// The part that is there; each view is a copy of its own, so that a read beyond it is seen.
std::byte* memory() {
  static std::byte bytes[kMemoryBytes];
  return bytes;
}

std::vector<std::vector<std::uint8_t>>& views() {
  static std::vector<std::vector<std::uint8_t>> all;
  return all;
}

const std::uint8_t* view(std::uint64_t address, std::size_t size_bytes) {
  if (address < kBase || size_bytes == 0 || size_bytes > kMemoryBytes || address - kBase > kMemoryBytes - size_bytes) return nullptr;
  const auto* from = reinterpret_cast<const std::uint8_t*>(memory() + (address - kBase));
  return views().emplace_back(from, from + size_bytes).data();
}

// Puts what the input has there, as a table whose length and checksum are right unless it says otherwise.
void put_table(Input& input, std::size_t at, const char* name) {
  const Bytes content = input.take(input.byte());
  std::byte* table = memory() + at;
  std::memcpy(table + 36, content.data(), content.size());
  std::memcpy(table, name, 4);
  const auto length = static_cast<std::uint32_t>(36 + content.size());
  std::memcpy(table + 4, &length, sizeof length);
  patch({table, length}, input, input.byte() % 4);
  table[9] = std::byte{0};
  std::uint32_t claimed;
  std::memcpy(&claimed, table + 4, sizeof claimed);
  unsigned sum = 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(claimed, kMemoryBytes - at); ++i) sum += std::to_integer<unsigned>(table[i]);
  table[9] = static_cast<std::byte>(-sum);
}

void run(Bytes bytes) {
  Input input(bytes);
  std::memset(memory(), 0, kMemoryBytes);
  const kernel::MachineInfo own = kernel::g_machine;  // in a VM, of the machine that this runs on
  kernel::g_machine = {};
  std::memcpy(memory(), "RSD PTR ", 8);
  const std::uint32_t root = kBase + 64;
  std::memcpy(memory() + 16, &root, sizeof root);
  constexpr const char* kNames[] = {"APIC", "FACP", "MCFG", "DSDT"};
  for (std::uint32_t i = 0; i < 4; ++i) {
    put_table(input, 512 * (i + 1), kNames[i]);
    const std::uint32_t address = kBase + 512 * (i + 1);
    std::memcpy(memory() + 64 + 36 + 4 * i, &address, sizeof address);
  }
  const std::uint32_t length = 36 + 16;
  std::memcpy(memory() + 64 + 4, &length, sizeof length);
  unsigned sum = 0;
  for (std::size_t i = 0; i < length; ++i) sum += std::to_integer<unsigned>(memory()[64 + i]);
  memory()[64 + 9] = static_cast<std::byte>(-sum);
  // The MP table lies where nothing else does.
  std::memcpy(memory() + 3072, "_MP_", 4);
  const std::uint32_t table = kBase + 3088;
  std::memcpy(memory() + 3076, &table, sizeof table);
  std::memcpy(memory() + 3088, "PCMP", 4);
  const Bytes rest = input.rest();
  std::memcpy(memory() + 3092, rest.data(), std::min<std::size_t>(rest.size(), kMemoryBytes - 3092));

  const bool found = kernel::read_acpi_tables({}, view);
  KELDA_ASSERT(found);
  (void)kernel::read_mp_table(view);
  const kernel::MachineInfo& machine = kernel::g_machine;
  KELDA_ASSERT(machine.cpu_count <= kernel::kMaxCpus && machine.io_apic_count <= kernel::kMaxIoApics);
  KELDA_ASSERT(machine.mmio_slot_count <= kernel::kMaxMmioSlots);
  views().clear();
  kernel::g_machine = own;
}

}  // namespace

const FuzzTarget kFirmware = {"firmware", run};

}  // namespace kelda::fuzz
