// Which pages are in use: bitmaps on the space-map pages (btree/space_map.h), changed in the log records of the steps
// that allocate and free, so that space and trees agree after every crash.
//
// Contract
//  - allocate() claims in memory first (two cores never get the same page), and the claim becomes lasting with the log
//    record that carries its PageChange (SpaceStep). A claim that is not used is given back with cancel().
//  - A page may be reused as soon as its freeing record was appended: freed() after that.
//  - kNoSpace when the disk is full. A share is kept back so that removing keys and rolling back still work then
//    (Use::kReserve), and what open transactions removed stays promised to them until they end (promise()).
//  - Any core; no latch may be held by callers of allocate (it may wait for a page or the log), any may in freed, cancel.
//
// Invariants
//  S1. A group is formatted only after all groups below it: the first unformatted one ends what load() reads.
//  S2. A bit in memory is set if the bit on the page is set, or the page is claimed. (The page follows the memory.)
//  S3. Pages below kFirstFreePage are never handed out: maps and fixed roots (BTree::ensure_at).
//  S4. A freed page leaves the pool unwritten before it can be handed out again.
//  S5. A page is discarded on the device only while it is claimed for that, was free all the time since a checkpoint
//      began that has ended well, and so is referred to by no record from the redo point on (docs/architecture.md).
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "bufferpool/buffer_pool.h"
#include "common/result.h"
#include "disk/layout.h"
#include "runtime/sync.h"
#include "wal/log.h"

namespace kelda::btree {

inline constexpr std::uint64_t kFirstFreePage = 8;

class Space {
 public:
  static Result<std::unique_ptr<Space>> create(bufferpool::BufferPool& pool, wal::Log& log, const disk::Layout& layout);
  ~Space();

  // Reads the maps, to know what is free: after redo (the first undo may need it already), or on first use. Groups that
  // were never used are not read and not formatted. Idempotent.
  Result<> load();

  enum class Use { kNormal, kReserve };  // kReserve: roll-back, removal, structure changes that free more than they take
  Result<PageId> allocate(Use use = Use::kNormal, PageId near = kNoPage);
  // Ascending, adjacent where possible; for overflow values.
  Result<std::vector<PageId>> allocate_run(std::uint32_t count, Use use = Use::kNormal);
  // Claims a fixed page (below kFirstFreePage) for a root. False: it is in use already.
  Result<bool> claim_fixed(PageId page);
  void cancel(std::span<const PageId> pages);
  // The record that frees them was appended. Their content is needed by nobody: the pool drops it.
  void freed(std::span<const PageId> pages);
  // Space that an open transaction may need back if it is rolled back; negative when it ends.
  void promise(std::int64_t bytes);
  // Before removing up to `bytes`: kNoSpace when what is free could not take back all that open transactions removed.
  // Never for the first of them, so that removing in small transactions always goes on.
  Result<> check_promise(std::size_t bytes) const;

  // Gives one run of pages, freed before the last checkpoint began, back to the device, and waits for it. False: there is
  // none. No latch may be held.
  bool discard_some();
  // Freed pages that the next checkpoint would make ready for that. 0 where the device cannot discard.
  std::uint64_t waiting_for_discard() const;
  static constexpr std::uint64_t kWorthACheckpoint = 1024;
  // Set when there is something to discard, or enough waits for a checkpoint that one is worth it
  // (kWorthACheckpoint).
  runtime::Event& discard_wanted();

  // In use or claimed. For a quiet database.
  bool in_use(PageId page) const;

  std::uint64_t page_count() const { return page_count_; }
  struct Stats { std::uint64_t page_count, used_pages, reserve_pages; };
  Stats stats() const;

 private:
  Space() = default;
  struct Impl;
  std::uint64_t page_count_ = 0;
  std::unique_ptr<Impl> impl_;
};

// The space-map part of one atomic step: pages that it takes into use or frees.
//   prepare (may wait) ... latch tree pages ... try_latch ... append changes() ... finish(lsn)
class SpaceStep {
 public:
  // `pages` ascending.
  SpaceStep(bufferpool::BufferPool& pool, std::span<const PageId> pages, bool set);
  // Makes the map pages resident. No latch held.
  Result<> prepare();
  // Latches the maps, ascending, after all tree and overflow pages. False: a map went away; release all, start again.
  // kCorrupt: a page to be freed is not in use. Tree and map cannot both be right then (the disk lost a write of one of them).
  Result<bool> try_latch();
  // Appends the changes to a record's; they refer to this object.
  void add_to(std::vector<wal::PageChange>& changes) const;
  std::size_t payload_bytes() const { return runs_.size() * sizeof(std::uint16_t); }
  std::size_t map_count() const { return maps_.size(); }
  // Sets or clears the bits, and releases.
  void finish(Lsn lsn);

 private:
  struct Map {
    PageId page;
    std::size_t begin, end;  // in runs_
  };
  Result<> check_in_use();
  bufferpool::BufferPool& pool_;
  bool set_;
  std::vector<Map> maps_;
  std::vector<std::uint16_t> runs_;  // first bit, count, ...
  PageId refused_ = kNoPage;         // a space map, or twice in `pages`: of a damaged tree
  std::vector<bufferpool::ExclusiveGuard> guards_;
};

}  // namespace kelda::btree
