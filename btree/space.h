// Which pages are in use: bitmaps on the space-map pages (disk/layout.h), changed in the log records of the steps that
// allocate and free, so that space and trees agree after every crash.
//
// Contract: allocate() claims in memory first (two cores never get the same page), and the claim becomes lasting with the
// log record that carries its PageChange. A claim that is not used is given back with cancel(). A page that was freed
// may be reused at once after its freeing record was appended. kNoSpace when the disk is full; a share is kept back so
// that removing keys and rolling back still work then (`reserve`).
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "bufferpool/buffer_pool.h"
#include "common/result.h"
#include "disk/layout.h"

namespace kelda::btree {

class Space {
 public:
  static Result<std::unique_ptr<Space>> create(bufferpool::BufferPool& pool, const disk::Layout& layout);
  ~Space();

  // Formats the space maps of an empty disk through the log (see format in btree/). Idempotent.
  // Reads the maps after recovery, to know what is free.
  Result<> load();

  enum class Use { kNormal, kReserve };  // kReserve: roll-back, removal, structure changes that free more than they take
  Result<PageId> allocate(Use use = Use::kNormal, PageId near = kNoPage);
  // Adjacent where possible, for overflow values.
  Result<std::vector<PageId>> allocate_run(std::uint32_t count, Use use = Use::kNormal);
  void cancel(std::span<const PageId> pages);
  // The record that frees them was appended.
  void freed(std::span<const PageId> pages);

  struct Stats { std::uint64_t page_count, used_pages, reserve_pages; };
  Stats stats() const;

 private:
  Space() = default;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kelda::btree
