#include "kernel/symbols.h"

#include <cstring>

namespace kelda::kernel {

// Filled after linking. Volatile reads below: the compiler must not believe the zeroes it sees here.
extern "C" {
extern const std::uint8_t kelda_symbol_table[kSymbolTableBytes];
[[gnu::section(".kelda_symbols")]] alignas(16) const std::uint8_t kelda_symbol_table[kSymbolTableBytes] = {};
}

Symbol find_symbol(std::uint64_t address) {
  Symbol current, found;
  const std::uint8_t* table = kelda_symbol_table;
  asm volatile("" : "+r"(table));
  std::uint32_t magic, count;
  std::uint64_t at_address;
  std::memcpy(&magic, table, 4);
  std::memcpy(&count, table + 4, 4);
  std::memcpy(&at_address, table + 8, 8);
  if (magic != kSymbolMagic) return found;
  const std::uint8_t* at = table + 16;
  for (std::uint32_t i = 0; i < count; ++i) {
    std::uint64_t delta = 0;
    unsigned shift = 0;
    do {
      delta |= std::uint64_t{*at & 0x7fu} << shift;
      shift += 7;
    } while (*at++ & 0x80);
    at_address += delta;
    if (at_address > address) break;
    std::size_t shared = *at++, rest = *at++;
    std::memcpy(current.name + shared, at, rest);
    current.name[shared + rest] = 0;
    at += rest;
    current.offset = address - at_address;
    found = current;
  }
  return found;
}

}  // namespace kelda::kernel
