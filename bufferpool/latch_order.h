// The order of page latches, checked while the program runs. Debug builds only: without KELDA_DEBUG_CHECKS these are
// empty functions.
//
// Contract. Every page latch that a fiber holds is on its record (runtime/held_latches.h). A violation aborts, also when
// it did no harm this time:
//  - a latch is taken in the order of docs/architecture.md, as far as the page's type tells it: tree nodes, then overflow
//    pages, then space maps by ascending id. (Top down and left to right among tree nodes is not visible here.) A latch on
//    a fresh page may come at any time: nobody else knows the page
//  - a fiber with latches waits for nothing but a further latch; it reads no page. One exception: a fresh page's frame,
//    where others took what reserve_frames() had found free (eviction needs none of the latches)
//  - what may wait for more - room in the log, frames, pages to allocate - asks require_no_latch() first
//  - nobody waits for a page that he has latched himself
// `region` is where the pool's page 0 lies, and tells pools apart.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/types.h"

namespace kelda::bufferpool {

enum class LatchOrder : std::uint8_t { kByType, kAnyTime };

#ifdef KELDA_DEBUG_CHECKS

// The running fiber has just latched the page, or is about to release it.
void latch_taken(const std::byte* region, PageId page, LatchOrder order = LatchOrder::kByType);
void latch_released(const std::byte* region, PageId page);
void require_no_latch();

// Around a wait that may come with latches held: for the latch of `page`, or for the frame of a fresh `page`.
class LatchWait {
 public:
  LatchWait(const std::byte* region, PageId page);
  ~LatchWait();
  LatchWait(const LatchWait&) = delete;
  LatchWait& operator=(const LatchWait&) = delete;
};

#else

inline void latch_taken(const std::byte*, PageId, LatchOrder = LatchOrder::kByType) {}
inline void latch_released(const std::byte*, PageId) {}
inline void require_no_latch() {}

class LatchWait {
 public:
  LatchWait(const std::byte*, PageId) {}
  ~LatchWait() {}
};

#endif

}  // namespace kelda::bufferpool
