#include "kernel/tables.h"

#include "kernel/memory.h"
#include "kernel/traps.h"

namespace kelda::kernel {

namespace {

std::uint64_t* table_of(std::uint64_t entry) {
  return reinterpret_cast<std::uint64_t*>(entry & kPteFrameMask);
}

// The table below `entry`, made if need be. Two CPUs may make it at once: one of them wins.
std::uint64_t* descend(std::uint64_t* entry, bool create) {
  // Acquire: the table was zeroed before its entry was published.
  std::uint64_t value = atomic_entry(entry).load(std::memory_order_acquire);
  if (value & kPteLarge) return nullptr;
  if (value & kPtePresent) return table_of(value);
  if (!create) return nullptr;
  auto frame = alloc_frame();
  if (!frame) return nullptr;
  zero_frame(*frame);
  std::uint64_t expected = 0;
  if (atomic_entry(entry).compare_exchange_strong(expected, frame->value | kPtePresent | kPteWritable,
                                                  std::memory_order_acq_rel)) {
    return table_of(frame->value);
  }
  free_frame(*frame);
  return table_of(expected);
}

}  // namespace

std::uint64_t* table_entry(VirtAddr address, TableLevel level, bool create, std::uint64_t* top) {
  unsigned slot = top_index(address);
  std::uint64_t* table = descend(&top[slot], create);
  if (!table) return nullptr;
  // P3: the alternate table follows the main one. Idempotent, so it needs no lock.
  if (top == kelda_top_table && !is_optimistic_slot(slot) && g_alternate_top[slot] != top[slot]) {
    atomic_entry(&g_alternate_top[slot]).store(top[slot], std::memory_order_release);
  }
  for (int at = 2; at > static_cast<int>(level); --at) {
    table = descend(&table[address >> (12 + 9 * at) & (kTableEntries - 1)], create);
    if (!table) return nullptr;
  }
  return &table[address >> (12 + 9 * static_cast<int>(level)) & (kTableEntries - 1)];
}

std::uint64_t* existing_page_entry(VirtAddr address, VirtAddr& next) {
  std::uint64_t* table = kelda_top_table;
  for (int at = 3; at > 0; --at) {
    std::uint64_t reach = std::uint64_t{kPageBytes} << 9 * at;
    next = round_down(address, reach) + reach;
    table = descend(&table[address >> (12 + 9 * at) & (kTableEntries - 1)], false);
    if (!table) return nullptr;
  }
  return &table[address >> 12 & (kTableEntries - 1)];
}

Mapping find_mapping(VirtAddr address) {
  if (address >> 47) return {};
  std::uint64_t* table = kelda_top_table;
  for (int at = 3; at >= 0; --at) {
    std::uint64_t entry =
        atomic_entry(&table[address >> (12 + 9 * at) & (kTableEntries - 1)]).load(std::memory_order_acquire);
    if (!(entry & kPtePresent)) return {};
    if (at == 0 || (entry & kPteLarge)) return {entry, std::uint64_t{kPageBytes} << 9 * at};
    table = table_of(entry);
  }
  return {};
}

bool access_is_allowed(VirtAddr address, std::uint64_t fault_error) {
  if (fault_error & kFaultReserved) return false;
  Mapping mapping = find_mapping(address);
  if (!mapping.entry) return false;
  if ((fault_error & kFaultWrite) && !(mapping.entry & kPteWritable)) return false;
  return !((fault_error & kFaultFetch) && (mapping.entry & kPteNoExecute));
}

}  // namespace kelda::kernel
