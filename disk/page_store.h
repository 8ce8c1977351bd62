// Where pages go. Nothing above this seam knows a disk address.
//
// Contract: write() gets copies that nobody changes, stamps id and checksum, and returns when they are on the device
// in a way that survives a crash at any moment: every page afterwards reads as the old or the new version, never torn.
// The log up to each page's lsn is durable before write() is called (the pool sees to it). sync() makes every earlier
// write() durable. Failures are reported once and never retried: from the first failed write or flush on, every write()
// and sync() returns that error.
//
// Callers keep a page out of a second write() while it is in one. Everything may be called from any core at once.
//
// In place with torn-page repair by double write (double_write.h): a batch is first written to a slot of the
// double-write area with its own checksums and flushed, then in place; repair() at open restores, from slots that were
// in flight, the pages whose copy in place does not verify.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "blockdev/blockdev.h"
#include "disk/layout.h"

namespace kelda::disk {

struct PageWrite {
  PageId page;
  std::byte* copy;  // kPageBytes, aligned to kPageBytes, owned by the caller until write() returns; its header is stamped here
};

class PageStore {
 public:
  static constexpr std::size_t kMaxBatchPages = 128;

  virtual ~PageStore() = default;
  // Verifies id and checksum: kCorrupt names page and reason. `into` is kPageBytes, page-aligned; the pool passes the
  // frame's own memory. A page that was never written is kNotFound only when it reads as all zero.
  virtual Result<> read(PageId page, std::byte* into) = 0;
  // As read, for many at once, in parallel; one status a page.
  virtual void read_batch(std::span<const PageId> pages, std::span<std::byte* const> into, std::span<Result<>> status) = 0;
  // The same into one piece of memory, page i at into + i * kPageBytes: pages that follow each other are read with one
  // request. For reading much of a disk.
  virtual void read_runs(std::span<const PageId> pages, std::byte* into, std::span<Result<>> status);
  virtual Result<> write(std::span<const PageWrite> batch) = 0;  // at most kMaxBatchPages
  virtual Result<> sync() = 0;
  // Told that the pages' content is no longer needed (a hint: discard). The caller must have made their being free
  // durable, and must not write them again before this returns. Returns when the device is done; errors are dropped.
  virtual void forget(std::span<const PageId> pages) = 0;
  // False: forget() does nothing.
  virtual bool can_forget() const { return false; }
  virtual const Layout& layout() const = 0;

  // For scrubbing: where the store keeps copies of its own, in areas of copy_area_bytes() each. check: kCorrupt says what
  // is damaged; ok also for an area that is being written.
  virtual std::uint64_t copy_areas() const { return 0; }
  virtual std::uint64_t copy_area_bytes() const { return 0; }
  virtual Result<> check_copy_area(std::uint64_t) { return {}; }

  struct RepairReport { std::uint64_t slots_in_flight = 0, pages_repaired = 0; };
  // Once, at open, before anything is read or written. Idempotent; may be interrupted anywhere.
  virtual Result<RepairReport> repair() = 0;
};

inline void PageStore::read_runs(std::span<const PageId> pages, std::byte* into, std::span<Result<>> status) {
  std::vector<std::byte*> each;
  for (std::size_t i = 0; i < pages.size(); ++i) each.push_back(into + i * kPageBytes);
  read_batch(pages, each, status);
}

// `device` outlives the store.
std::unique_ptr<PageStore> make_double_write_store(blockdev::BlockDevice& device, const Layout& layout);

}  // namespace kelda::disk
