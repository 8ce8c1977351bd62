// The pool's frames: which page each holds, the hand of the clock that goes round them, and the free ones.
//
// Why an array by frame and not a hash table by page: the clock only ever asks "what is in the next frames", in order,
// and nothing asks for the frame of a page (the page map knows it where one is needed). 8 bytes a frame, no probing.
//
// A frame's page changes only under that page's exclusive latch. A sweep that read a frame's page without it must look
// again once it has the latch.
#pragma once

#include <atomic>
#include <optional>
#include <vector>

#include "bufferpool/lazy_array.h"
#include "common/types.h"

namespace kelda::bufferpool {

class FrameTable {
 public:
  static constexpr PageId kNone{~std::uint64_t{0}};

  static Result<FrameTable> create(std::uint64_t count) {
    FrameTable table;
    table.pages_ = TRY(LazyArray<std::atomic<std::uint64_t>>::create(count));
    return table;
  }
  FrameTable() = default;
  FrameTable(FrameTable&& o) noexcept : pages_(std::move(o.pages_)) {}
  FrameTable& operator=(FrameTable&& o) noexcept {
    pages_ = std::move(o.pages_);
    return *this;
  }

  std::uint64_t count() const { return pages_.size(); }
  // Stored as its complement, so that untouched memory means kNone. Acquire and release: whoever finds a page here sees
  // its state word as it was when the page was put here, or later.
  PageId page_of(FrameId frame) const { return PageId(~pages_[frame.value].load(std::memory_order_acquire)); }
  void put(FrameId frame, PageId page) { pages_[frame.value].store(~page.value, std::memory_order_release); }
  void clear(FrameId frame) { put(frame, kNone); }

  // Moves the hand on and returns where the passed stretch starts; it may wrap at count().
  std::uint64_t advance_hand(std::uint64_t frames) { return hand_.fetch_add(frames, std::memory_order_relaxed) % count(); }

 private:
  LazyArray<std::atomic<std::uint64_t>> pages_;
  std::atomic<std::uint64_t> hand_{0};
};

}  // namespace kelda::bufferpool
