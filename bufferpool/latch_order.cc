#include "bufferpool/latch_order.h"

#ifdef KELDA_DEBUG_CHECKS

#include <algorithm>

#include "common/assert.h"
#include "disk/layout.h"
#include "runtime/core.h"
#include "runtime/held_latches.h"

namespace kelda::bufferpool {
namespace {

using runtime::HeldLatches;

enum Rank : std::uint8_t { kUnordered, kNode, kOverflow, kSpaceMap };

Rank rank_of(const std::byte* page) {
  switch (static_cast<disk::PageType>(disk::header_of(page).type)) {
    case disk::PageType::kTreeNode: return kNode;
    case disk::PageType::kOverflowIndex:
    case disk::PageType::kOverflowData: return kOverflow;
    case disk::PageType::kSpaceMap: return kSpaceMap;
    case disk::PageType::kFree: break;
  }
  return kUnordered;
}

bool in_order(const HeldLatches::Latch& held, const HeldLatches::Latch& taken) {
  if (held.owner != taken.owner || held.rank == kUnordered || taken.rank == kUnordered) return true;
  if (held.rank == kSpaceMap && taken.rank == kSpaceMap) return held.id < taken.id;
  return held.rank <= taken.rank;
}

HeldLatches& held_latches() { return runtime::Core::current().held_latches(); }

}  // namespace

void latch_taken(const std::byte* region, PageId page, LatchOrder order) {
  HeldLatches& held = held_latches();
  if (held.unchecked()) return;
  const Rank rank = order == LatchOrder::kByType ? rank_of(region + page.value * kPageBytes) : kUnordered;
  const HeldLatches::Latch latch{region, page.value, rank};
  const bool latches_are_in_order = std::ranges::all_of(held, [&](const auto& other) { return in_order(other, latch); });
  KELDA_ASSERT(latches_are_in_order);
  held.add(latch);
}

void latch_released(const std::byte* region, PageId page) {
  HeldLatches& held = held_latches();
  if (held.unchecked()) return;
  const bool was_latched_by_this_fiber = held.remove(region, page.value);
  KELDA_ASSERT(was_latched_by_this_fiber);
}

void require_no_latch() { KELDA_ASSERT(held_latches().none()); }

LatchWait::LatchWait(const std::byte* region, PageId page) {
  HeldLatches& held = held_latches();
  const bool waits_for_itself =
      std::ranges::any_of(held, [&](const auto& own) { return own.owner == region && own.id == page.value; });
  KELDA_ASSERT(!waits_for_itself);
  held.enter_wait();
}

LatchWait::~LatchWait() { held_latches().leave_wait(); }

}  // namespace kelda::bufferpool

#endif
