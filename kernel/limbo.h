// The queue of unmapped ranges whose frames wait for other CPUs to flush (invariants in tlb.h). The area lock of
// demand.cc is held for every call but limbo_page_count(). Private to kernel/.
#pragma once

#include <cstdint>

#include "kernel/paging.h"
#include "kernel/tables.h"

namespace kelda::kernel {

// Software bits of entries that are not present (demand.h).
inline constexpr std::uint64_t kPteLimbo = 1u << 9;
inline constexpr std::uint64_t kPteHidden = 1u << 10;

// Puts every frame behind [begin, end) into limbo as one new generation, then frees what has passed. False when the
// queue is full: limbo_force() first.
bool limbo_add(VirtAddr begin, VirtAddr end);
// Frees everything in limbo, by interrupting other CPUs where needed. True if it freed anything.
bool limbo_force();

// Calls visit(entry, page) for every entry of [begin, end) whose table exists and that is not zero.
template <class Visit>
void for_each_entry(VirtAddr begin, VirtAddr end, Visit visit) {
  for (VirtAddr page = begin; page < end;) {
    VirtAddr next;
    std::uint64_t* entry = existing_page_entry(page, next);
    if (next > end) next = end;
    if (!entry) {
      page = next;
      continue;
    }
    for (; page < next; page += kPageBytes, ++entry) {
      if (*entry) visit(entry, page);
    }
  }
}

}  // namespace kelda::kernel
