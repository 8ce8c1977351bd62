#include "kernel/limbo.h"

#include <atomic>

#include "kernel/memory.h"
#include "kernel/tlb.h"

namespace kelda::kernel {

namespace {

struct Range {
  VirtAddr begin, end;
  std::uint64_t generation;
  std::uint64_t tag;  // as its entries carry it, shifted
};

// Fewer than the tags can tell apart: a tag names one range of the queue.
constexpr std::size_t kQueueSize = 1024;
constexpr std::uint64_t kTagShift = 52, kTags = 2048;
static_assert(kQueueSize < kTags);
// Up to so many pages are invalidated one by one; more are forgotten by a flush of everything.
constexpr std::uint64_t kFewPages = 32;
// More than this share of RAM never waits.
constexpr std::uint64_t kLimboShare = 8;

constinit Range g_queue[kQueueSize] = {};
constinit std::size_t g_head = 0, g_count = 0;
constinit std::atomic<std::uint64_t> g_pages{0};

constinit std::uint64_t g_last_tag = 0;

std::uint64_t next_tag() {
  return ((g_last_tag + 1) % kTags) << kTagShift;
}

// Frees the frames that still carry the range's tag; others are gone, or retired again later.
bool release(const Range& range) {
  std::uint64_t freed = 0;
  for_each_entry(range.begin, range.end, [&](std::uint64_t* entry, VirtAddr) {
    if (!(*entry & kPteLimbo) || (*entry & (kTags - 1) << kTagShift) != range.tag) return;
    PhysAddr frame(*entry & kPteFrameMask);
    *entry = 0;
    free_frame(frame);
    ++freed;
  });
  g_pages.fetch_sub(freed, std::memory_order_relaxed);
  return freed != 0;
}

bool release_oldest() {
  bool freed = release(g_queue[g_head]);
  g_head = (g_head + 1) % kQueueSize;
  --g_count;
  return freed;
}

}  // namespace

std::uint64_t limbo_page_count() {
  return g_pages.load(std::memory_order_relaxed);
}

bool limbo_add(VirtAddr begin, VirtAddr end) {
  if (g_count == kQueueSize) return false;
  std::uint64_t tag = next_tag();
  std::uint64_t retired = 0;
  for_each_entry(begin, end, [&](std::uint64_t* entry, VirtAddr page) {
    if (*entry & kPteLimbo) return;
    atomic_entry(entry).store((*entry & kPteFrameMask) | kPteLimbo | tag, std::memory_order_relaxed);
    if (++retired <= kFewPages) invalidate_page(page);
  });
  if (!retired) return true;
  ++g_last_tag;  // only those of the queue are taken
  g_pages.fetch_add(retired, std::memory_order_relaxed);
  std::uint64_t generation = tlb_new_generation(retired <= kFewPages);
  g_queue[(g_head + g_count++) % kQueueSize] = {begin, end, generation, tag};
  while (g_count && tlb_passed(g_queue[g_head].generation)) release_oldest();
  if (g_pages.load(std::memory_order_relaxed) > memory_stats().total_page_count / kLimboShare) limbo_force();
  return true;
}

bool limbo_force() {
  if (!g_count) return false;
  tlb_force(g_tlb_generation.load(std::memory_order_relaxed));
  // All of it has passed now. Asked again, a CPU that slept a moment ago may be about to flush, and say no.
  bool freed = false;
  while (g_count) freed |= release_oldest();
  return freed;
}

}  // namespace kelda::kernel
