// What a PVH loader hands over (Xen public header arch-x86/hvm/start_info.h, version 1). Private to kernel/.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kelda::kernel {

struct StartInfo {
  std::uint32_t magic;             //  0
  std::uint32_t version;           //  4
  std::uint32_t flags;             //  8
  std::uint32_t module_count;      // 12
  std::uint64_t modules;           // 16
  std::uint64_t command_line;      // 24
  std::uint64_t rsdp;              // 32
  std::uint64_t memory_map;        // 40
  std::uint32_t memory_map_count;  // 48
  std::uint32_t reserved;          // 52
};
static_assert(sizeof(StartInfo) == 56 && offsetof(StartInfo, rsdp) == 32);
inline constexpr std::uint32_t kStartInfoMagic = 0x336ec578;

struct MemoryMapEntry {
  std::uint64_t address, size_bytes;
  std::uint32_t type, reserved;
};
static_assert(sizeof(MemoryMapEntry) == 24);
inline constexpr std::uint32_t kMemoryRam = 1;

}  // namespace kelda::kernel
