#include "kernel/host_file.h"

#include <cstdint>

#include "kernel/machine.h"

namespace kelda::kernel {

namespace {

constexpr std::uint16_t kSelector = 0x510, kData = 0x511;
constexpr std::uint16_t kSignatureItem = 0x00, kDirectoryItem = 0x19;
constexpr std::size_t kNameBytes = 56;
// A device that answers nonsense must not keep the start; QEMU has some dozens of files.
constexpr std::uint32_t kMostFiles = 4096;

void select_item(std::uint16_t item) { out16(kSelector, item); }

std::uint32_t read_big_endian(int size_bytes) {
  std::uint32_t value = 0;
  while (size_bytes-- > 0) value = value << 8 | in8(kData);
  return value;
}

bool device_is_there() {
  select_item(kSignatureItem);
  return read_big_endian(4) == 0x51454d55;  // "QEMU"; a port that nobody drives reads as ones
}

struct File {
  std::uint32_t size_bytes;
  std::uint16_t item;
};

// The directory's next entry; `matches` is whether it has this name.
File read_entry(std::string_view name, bool& matches) {
  File file;
  file.size_bytes = read_big_endian(4);
  file.item = static_cast<std::uint16_t>(read_big_endian(2));
  read_big_endian(2);  // reserved
  matches = name.size() < kNameBytes;
  for (std::size_t i = 0; i < kNameBytes; ++i) {
    const char byte = static_cast<char>(in8(kData));
    if (i <= name.size() && byte != (i < name.size() ? name[i] : 0)) matches = false;
  }
  return file;
}

}  // namespace

std::optional<std::size_t> read_host_file(std::string_view name, MutableBytes out) {
  if (!device_is_there()) return std::nullopt;
  select_item(kDirectoryItem);
  const std::uint32_t count = read_big_endian(4);
  for (std::uint32_t i = 0; i < count && i < kMostFiles; ++i) {
    bool matches = false;
    const File file = read_entry(name, matches);
    if (!matches) continue;
    select_item(file.item);
    for (std::size_t at = 0; at < file.size_bytes && at < out.size(); ++at) out[at] = std::byte{in8(kData)};
    return file.size_bytes;
  }
  return std::nullopt;
}

}  // namespace kelda::kernel
