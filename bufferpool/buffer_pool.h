// Page id -> address: the pool is virtual memory, one entry a page (vmcache, SIGMOD 2023).
//
// Contract
//  - Page p lives at base + p * kPageBytes, resident or not. A state word a page holds version, latch and flags.
//  - Readers: optimistic (read version, read page, validate), shared, or exclusive. Latches are short: never held
//    across a wait, except that a miss holds the page's own latch while it is read.
//  - Latch order: tree pages top down, left to right; then overflow pages; then space-map pages by ascending id.
//  - A changed page carries the LSN of its last log record (mark_dirty); it is written only after the log up to there
//    is durable (WriteBarrier), from a copy taken under a shared latch.
//  - At most frame_count pages are resident; a miss beyond evicts (second chance, in batches).
//  - A failed page read is returned to the reader; a failed page write puts the pool into the failed state: from then on
//    every miss that needs a frame, and write_back(), return the first error.
//  - A miss may wait for others' latches only through the frames they hold: eviction skips latched pages, so all fibers
//    together must not hold as many latches as there are frames.
//
// Invariants (docs/architecture.md, "The pool")
//  1. A frame is reused only after every core has passed an epoch since its page was unmapped.
//  2. A page is never mapped to a different frame before that same point: a miss on a page in limbo takes its old frame
//     back, with no I/O.
//  3. A load through an optimistic reader may hit an entry that was just cleared; it completes, and validation fails.
//  4. Content goes to the device from a latched copy, after its log.
//  5. free + resident + limbo + in flight = all frames.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>

#include "bufferpool/latch_order.h"
#include "bufferpool/page_state.h"
#include "common/assert.h"
#include "common/result.h"
#include "disk/page_store.h"

namespace kelda::bufferpool {

class PageMap;

// What the pool asks of the log before a page goes out.
class WriteBarrier {
 public:
  virtual ~WriteBarrier() = default;
  virtual Result<> wait_durable(Lsn lsn) = 0;  // parks
};

struct PoolOptions {
  std::uint64_t frame_count = 0;  // memory bound in pages; at least kMinFrames
  std::uint64_t page_count = 0;   // size of the virtual region
};

struct PoolStats {
  std::uint64_t frames, free, resident, limbo, in_flight, dirty;
  std::uint64_t hits_slow;      // hits that cleared a mark or waited for a latch
  std::uint64_t misses, limbo_hits, evictions, pages_written, pages_read;
  std::uint64_t evict_stalls;   // misses that found no free frame
};

class BufferPool {
 public:
  static constexpr std::uint64_t kMinFrames = 256;
  // kInvalidArgument, kOutOfMemory. `store` outlives the pool.
  static Result<std::unique_ptr<BufferPool>> create(const PoolOptions& options, disk::PageStore& store);
  // The same over a given page map; for tests.
  static Result<std::unique_ptr<BufferPool>> create(const PoolOptions& options, disk::PageStore& store,
                                                    std::unique_ptr<PageMap> map);
  // No fiber may be inside; what is dirty is lost (write_back_all first).
  ~BufferPool();
  // Before the first write of a page. Not owned.
  void set_write_barrier(WriteBarrier& barrier);

  // --- hot path, inline: see pool_inline.h ---
  const std::byte* data(PageId page) const { return base_ + page.value * kPageBytes; }
  // Optimistic read: true and the version when the page is resident and not exclusively latched. Otherwise call
  // make_resident() and try again. Any page id may be asked; one out of range is false, and an error of make_resident().
  bool optimistic_begin(PageId page, std::uint64_t& version) const;
  // True if nothing changed since `version`. Everything read from the page before is then consistent.
  bool optimistic_validate(PageId page, std::uint64_t version) const;

  // Slow path of the above: reads the page if absent, waits while it is exclusively latched, clears second chance.
  Result<> make_resident(PageId page) { return acquire_slow(page, Acquire::kPresent); }

  // Blocking latches; read the page if absent. Release through the guards below.
  Result<> latch_shared(PageId page);
  Result<> latch_exclusive(PageId page);
  // From an optimistic read: fails (false) if the version changed. Waits for shared holders to go.
  bool try_upgrade(PageId page, std::uint64_t version);
  // For a page whose old content does not matter (just allocated): takes a frame without reading, zeroed, exclusively
  // latched. The page may be resident.
  Result<> latch_fresh(PageId page);
  void unlatch_shared(PageId page);
  void unlatch_exclusive(PageId page);
  // Exclusive latch held. Sets the header's lsn and the dirty flag.
  void mark_dirty(PageId page, Lsn lsn);
  std::byte* mutable_data(PageId page) { return base_ + page.value * kPageBytes; }

  // Starts reading what is absent of the first kMaxPrefetch pages, without waiting; a hint, which is dropped when frames
  // are short, and on a plain thread.
  static constexpr std::size_t kMaxPrefetch = 32;
  void prefetch(std::span<const PageId> pages);
  // Reads what is absent of all the pages at once, for one that will need each of them and works on the pool alone
  // (recovery). Makes room by evicting. In a fiber it does not wait for the reads; a plain thread, whose core stands still
  // while it does not wait, does. No latch may be held. Errors are found again by whoever takes the page.
  void read_ahead(std::span<const PageId> pages);
  // Makes sure that `pages` frames can be taken without waiting soon: call before latching when many are needed.
  Result<> reserve_frames(std::uint64_t count);
  // Forgets pages that were freed: no write-back, first to be evicted. Never waits, so any latch may be held: a page that
  // somebody has latched is passed over (a reader that came too late, a copy that goes out) and will be written once more.
  void drop(std::span<const PageId> pages);
  // Drops them, and tells the store that their content is no longer needed: PageStore::forget(), whose contract the caller
  // keeps. Waits for the device. No latch may be held.
  void discard(std::span<const PageId> pages);
  bool can_discard() const;

  // Writes every page that is dirty when called, in batches, and syncs the store: afterwards all changes with an LSN
  // below the one current at the call are durable in the page area. Paced by max_pages_per_s (0: as fast as the device).
  // Several callers at once are safe.
  Result<> write_back_all(std::uint64_t max_pages_per_s = 0);

  // For scrubbing (settled.cc): a mark of the page at a moment when its place on the device holds its newest content and
  // nobody is writing it; nothing while it is changed or written. As long as still_settled() holds, that was so all along.
  std::optional<std::uint64_t> settled(PageId page) const;
  bool still_settled(PageId page, std::uint64_t mark) const;
  // Its LSN in memory, if it is in memory and still settled.
  std::optional<Lsn> settled_lsn(PageId page, std::uint64_t mark) const;
  // Makes a page that is in memory dirty as it is, so that it is written again. False: it is not in memory.
  bool write_again(PageId page);

  // Optional: keeps frames free ahead of need, so that misses neither sweep nor write. Runs in the calling fiber until
  // stop(); one per pool. Without it, misses do that work themselves.
  void provide_frames();
  void stop();

  // The first failed write (kFailed): from then on only hits go on. Any core.
  Result<> health() const;
  PoolStats stats() const;
  std::uint64_t frame_count() const;
  void check_invariants() const;  // aborts on a broken one (5 and state words); call on a quiet pool (waits for read-ahead)

 private:
  enum class Acquire : std::uint8_t { kPresent, kToRead, kToChange, kFresh };

  BufferPool() = default;
  Result<> acquire_slow(PageId page, Acquire what);
  void wake_waiters(PageId page);
  void wait_for_readers(PageId page);
  void first_dirty(PageId page);

  std::byte* base_ = nullptr;
  StateWord* states_ = nullptr;
  std::uint64_t page_count_ = 0;
  struct Impl;
  struct Prefetch;
  Prefetch claim_absent(std::span<const PageId>& pages, bool spare_only);
  void start(Prefetch prefetch);
  std::unique_ptr<Impl> impl_;
};

// RAII over the blocking latches.
class SharedGuard {
 public:
  static Result<SharedGuard> take(BufferPool& pool, PageId page);
  SharedGuard(SharedGuard&& o) noexcept : pool_(o.pool_), page_(o.page_) { o.pool_ = nullptr; }
  SharedGuard& operator=(SharedGuard&& o) noexcept {
    release();
    pool_ = o.pool_; page_ = o.page_; o.pool_ = nullptr;
    return *this;
  }
  ~SharedGuard() { release(); }
  void release() { if (pool_) pool_->unlatch_shared(page_); pool_ = nullptr; }
  PageId page() const { return page_; }
  const std::byte* data() const { return pool_->data(page_); }

 private:
  SharedGuard(BufferPool& pool, PageId page) : pool_(&pool), page_(page) {}
  BufferPool* pool_;
  PageId page_;
};

class ExclusiveGuard {
 public:
  static Result<ExclusiveGuard> take(BufferPool& pool, PageId page);
  static Result<ExclusiveGuard> take_fresh(BufferPool& pool, PageId page);
  // After a successful try_upgrade.
  static ExclusiveGuard adopt(BufferPool& pool, PageId page) { return ExclusiveGuard(pool, page); }
  ExclusiveGuard(ExclusiveGuard&& o) noexcept : pool_(o.pool_), page_(o.page_) { o.pool_ = nullptr; }
  ExclusiveGuard& operator=(ExclusiveGuard&& o) noexcept {
    release();
    pool_ = o.pool_; page_ = o.page_; o.pool_ = nullptr;
    return *this;
  }
  ~ExclusiveGuard() { release(); }
  void release() { if (pool_) pool_->unlatch_exclusive(page_); pool_ = nullptr; }
  PageId page() const { return page_; }
  std::byte* data() { return pool_->mutable_data(page_); }
  void mark_dirty(Lsn lsn) { pool_->mark_dirty(page_, lsn); }

 private:
  ExclusiveGuard(BufferPool& pool, PageId page) : pool_(&pool), page_(page) {}
  BufferPool* pool_;
  PageId page_;
};

}  // namespace kelda::bufferpool

#include "bufferpool/pool_inline.h"

namespace kelda::bufferpool {

inline Result<SharedGuard> SharedGuard::take(BufferPool& pool, PageId page) {
  TRY(pool.latch_shared(page));
  return SharedGuard(pool, page);
}

inline Result<ExclusiveGuard> ExclusiveGuard::take(BufferPool& pool, PageId page) {
  TRY(pool.latch_exclusive(page));
  return ExclusiveGuard(pool, page);
}

inline Result<ExclusiveGuard> ExclusiveGuard::take_fresh(BufferPool& pool, PageId page) {
  TRY(pool.latch_fresh(page));
  return ExclusiveGuard(pool, page);
}

}  // namespace kelda::bufferpool
