// Names of functions by address, from the table that kelda-embed-symbols writes into the linked program. Private.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kelda::kernel {

struct Symbol {
  char name[128] = "";  // empty when unknown
  std::uint64_t offset = 0;
};
// The function that holds `address`. Slow (decodes the table from its start), no locks, no memory: made for panics.
Symbol find_symbol(std::uint64_t address);

// Table layout, little-endian (shared with tools that write it; invariant: entries ascend by address):
//    0  magic "KSYM"          4
//    4  entry count           4
//    8  first address         8
//   16  entries: LEB128 address delta, 1 byte prefix shared with the last name, 1 byte rest length, rest
inline constexpr std::size_t kSymbolTableBytes = 512 * 1024;
inline constexpr std::uint32_t kSymbolMagic = 0x4d59534b;

}  // namespace kelda::kernel
