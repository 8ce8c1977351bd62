// Walking and growing the page-table tree (Intel SDM vol. 3, 4.5.4). Private to kernel/.
//
// Tables are reached through the identity map. They are only ever added, by compare-and-swap, never taken away: a
// pointer to an entry stays valid, and walks need no lock.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/types.h"
#include "kernel/paging.h"

namespace kelda::kernel {

inline constexpr std::size_t kTableEntries = 512;

// Kernel stacks and kernel tables that are mapped, not identity.
inline constexpr VirtAddr kKernelBase = 0x7800'0000'0000;
inline constexpr VirtAddr kKernelEnd = 0x7880'0000'0000;

extern "C" std::uint64_t kelda_top_table[kTableEntries];  // boot.S
// The page below the boot stack, which is never mapped once init_paging() is through (boot.S).
extern "C" char kelda_boot_stack_guard[];
// Like the main one, but for the optimistic range (optimistic.cc).
extern std::uint64_t g_alternate_top[kTableEntries];

enum class TableLevel : std::uint8_t { kPage = 0, kLarge = 1, kHuge = 2 };

// The entry for `address` at a level of the tree under `top`. Without `create`: null when a table is missing. With it:
// null only when memory is exhausted. Null also when a larger page covers the address.
std::uint64_t* table_entry(VirtAddr address, TableLevel level, bool create, std::uint64_t* top = kelda_top_table);

// The entry for the page at `address` if its table exists; else null, and `next` is the first address above that
// another table may cover. For walking large, thinly populated ranges.
std::uint64_t* existing_page_entry(VirtAddr address, VirtAddr& next);

// The entry that maps `address`, whatever its size, and that size; null entry when nothing is mapped.
struct Mapping {
  std::uint64_t entry = 0;
  std::uint64_t size_bytes = 0;
};
Mapping find_mapping(VirtAddr address);

inline std::atomic<std::uint64_t>& atomic_entry(std::uint64_t* entry) {
  static_assert(sizeof(std::atomic<std::uint64_t>) == sizeof(std::uint64_t));
  return *reinterpret_cast<std::atomic<std::uint64_t>*>(entry);
}

inline unsigned top_index(VirtAddr address) {
  return address >> 39 & (kTableEntries - 1);
}

// Is this top-level slot part of the optimistic range? Its alternate entry is then not the main one.
bool is_optimistic_slot(unsigned slot);

// Does the current mapping of `address` allow what a fault with this error code wanted? Then the fault was stale.
bool access_is_allowed(VirtAddr address, std::uint64_t fault_error);

}  // namespace kelda::kernel
