// The platform seam of the pool: which frame a page shows, and who referenced it.
//
// Contract. Calls for a page are made with its exclusive latch held (page_state.h), so never twice at once for the same
// page. Life of a page's entry:
//
//   nothing --map--> mapped --unmap--> limbo --release--> nothing
//                              ^---restore---'
//
// In limbo the frame's content stays intact and the entry remembers the frame. unmap() returns an epoch; once
// passed(epoch) is true no core can reach the frame through the page's address any more (pool invariants 1, 2), and the
// pool may release() it. A load at the address of a page that is not mapped completes, with whatever bytes (invariant 3).
//
// Implementations: page_map_hosted.cc, page_map_bare.cc, page_map_sim.cc.
#pragma once

#include <memory>
#include <span>

#include "common/result.h"
#include "common/types.h"

namespace kelda::bufferpool {

class PageMap {
 public:
  virtual ~PageMap() = default;
  using Epoch = std::uint64_t;

  // Page p's address is base() + p * kPageBytes.
  virtual std::byte* base() const = 0;
  // Where the content of a frame that is about to be mapped at `page` is put: also for devices.
  virtual std::byte* frame_address(PageId page, FrameId frame) = 0;
  // kOutOfMemory when no table for the entry can be had.
  virtual Result<> map(PageId page, FrameId frame) = 0;
  virtual Epoch unmap(std::span<const PageId> pages) = 0;
  virtual bool passed(Epoch epoch) = 0;
  virtual void restore(PageId page) = 0;
  // From limbo, or instead of map() when filling the frame failed. The pages need not be sorted.
  virtual void release(std::span<const PageId> pages) = 0;

  // Does the platform see by itself which pages are read?
  virtual bool has_reference_bits() const = 0;
  // Clears the reference bits of mapped pages (latched or not) and says which were set: referenced[i]. Only where
  // has_reference_bits().
  virtual void take_references(std::span<const PageId> pages, std::span<bool> referenced) = 0;
  // From then on, as soon as a core passes its epoch, its reads set the bits again that were taken. unmap() does so too.
  virtual void references_taken() = 0;
};

// Of the platform that this process runs on.
Result<std::unique_ptr<PageMap>> make_page_map(std::uint64_t frame_count, std::uint64_t page_count);
Result<std::unique_ptr<PageMap>> make_hosted_page_map(std::uint64_t page_count);
Result<std::unique_ptr<PageMap>> make_bare_page_map(std::uint64_t frame_count, std::uint64_t page_count);

}  // namespace kelda::bufferpool
