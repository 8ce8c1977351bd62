// What BufferPool is made of. Internal to bufferpool/: fault_in.cc (misses), evict.cc (the clock, limbo),
// write_back.cc (copies out, checkpoints), prefetch.cc, buffer_pool.cc (set-up, figures).
//
// Latches inside: a page's latch may be held while supply.latch, a waiters' bucket or the limbo queue is taken, never
// the other way round; those three are leaves.
#pragma once

#include <atomic>
#include <optional>
#include <vector>

#include "bufferpool/buffer_pool.h"
#include "bufferpool/frames.h"
#include "bufferpool/lazy_array.h"
#include "bufferpool/limbo.h"
#include "bufferpool/page_map.h"
#include "bufferpool/page_waiters.h"
#include "bufferpool/write_batch.h"
#include "runtime/sync.h"

namespace kelda::bufferpool {

// A page that the clock hand found, and its frame at that moment.
struct Victim {
  PageId page;
  FrameId frame;
};
using Victims = std::vector<Victim>;

struct BufferPool::Impl {
  Impl(const PoolOptions& options, disk::PageStore& page_store, std::unique_ptr<PageMap> page_map);

  StateWord& state(PageId page) { return states[page.value]; }
  void wake(PageId page) { waiters.wake(state(page), page); }

  // --- fault_in.cc ---
  Result<> acquire(PageId page, Acquire what);
  // A free frame, evicting and waiting as needed.
  Result<FrameId> take_frame();
  std::optional<FrameId> try_take_frame();
  void give_frames(std::span<const FrameId> frames);
  // The page, exclusively latched and absent, gets a frame with its content (or zeroes), still latched. On an error it
  // is as before.
  Result<> bring_in(PageId page, bool fresh);
  Result<> map_frame(PageId page, FrameId frame);
  void take_back(PageId page);
  // Ends the exclusive latch as what was asked for.
  void settle(PageId page, Acquire what);
  Result<> wait_for_frames(std::uint64_t count);

  // --- evict.cc ---
  // One round of eviction: frees what limbo can give, else looks for victims. Returns frames freed or put to limbo.
  Result<std::size_t> evict_some();
  void sweep(Victims& clean, Victims& dirty);
  void sweep_frames(std::uint64_t first, std::uint64_t count, Victims& clean, Victims& dirty);
  bool passed_over(PageId page, std::uint64_t word);
  std::size_t evict(const Victims& victims);
  std::size_t release_limbo();
  bool frames_are_low() const;
  void relieve();
  void provide_frames();
  void pause_without_progress(unsigned round);

  // --- write_back.cc ---
  // Copies a dirty page into the batch; false if it is not dirty, latched, or going out already.
  bool copy_out(PageId page, WriteBatch& batch);
  // Log, then store; then the pages are clean unless they changed meanwhile.
  Result<> write_out(WriteBatch& batch);
  Result<> write_back_all(std::uint64_t max_pages_per_s);
  struct Sweep;
  Result<> write_back_worker(Sweep& sweep);
  Result<> write_back_deferred(Sweep& sweep, std::vector<PageId>& deferred, WriteBatch& batch);
  Result<> write_back_batch(Sweep& sweep, WriteBatch& batch);

  // --- buffer_pool.cc ---
  Error fail(Error error);
  Result<> health();

  const std::uint64_t frame_count, page_count;
  const std::size_t batch_pages;     // victims looked for, pages written at once
  const std::uint64_t low_water, high_water;  // free frames: below, eviction starts; up to there it goes on
  disk::PageStore& store;
  std::unique_ptr<PageMap> map;
  WriteBarrier* barrier = nullptr;
  LazyArray<StateWord> states;
  FrameTable frames;
  LimboQueue limbo;
  PageWaiters waiters;
  WriteBatchPool batches;
  runtime::Mutex sweeping;  // write_back_all

  static constexpr unsigned kMaxEvictors = 4;
  static constexpr std::size_t kWriteBatches = 6;
  struct Supply {
    runtime::SpinLatch latch;
    std::vector<FrameId> free;
    runtime::WaitQueue waiters;  // for free frames, or for a place as evictor
    unsigned evictors = 0;
    std::optional<Error> failure;
  } supply;
  std::atomic<bool> failed{false};

  std::atomic<bool> providing{false}, stopping{false};
  runtime::Event provider_event;
  runtime::Completion prefetches;  // whose fibers have not ended

  // Invariant 5 adds up only on a quiet pool: a frame changes from one to the next in two steps.
  struct alignas(64) Counters {
    std::atomic<std::uint64_t> free{0}, resident{0}, limbo{0}, in_flight{0}, dirty{0};
    std::atomic<std::uint64_t> hits_slow{0}, misses{0}, limbo_hits{0}, evictions{0}, pages_written{0}, pages_read{0};
    std::atomic<std::uint64_t> evict_stalls{0};
  } counters;
  static void count(std::atomic<std::uint64_t>& counter, std::int64_t n = 1) {
    counter.fetch_add(static_cast<std::uint64_t>(n), std::memory_order_relaxed);
  }
};

}  // namespace kelda::bufferpool
