// Frames: the start info's memory map minus what is in use, in one FrameMap under one lock.
#include "kernel/memory.h"

#include <cstring>

#include "kernel/check.h"
#include "kernel/frame_map.h"
#include "kernel/internal.h"
#include "kernel/kernel.h"
#include "kernel/spinlock.h"
#include "kernel/tlb.h"

extern "C" char __ehdr_start[], _end[];

namespace kelda::kernel {

namespace {

// Real-mode data, the option ROMs and the trampoline live below; the firmware's tables lie above RAM's top.
constexpr std::uint64_t kLowMemoryEnd = 1_MiB;
constexpr std::size_t kMaxRanges = 32;

constinit RamRange g_ranges[kMaxRanges] = {};
constinit std::size_t g_range_count = 0;
constinit FrameMap g_map;
constinit std::uint64_t g_total = 0, g_free = 0;
constinit SpinLock g_lock;

void read_memory_map(const StartInfo& info) {
  auto* entries = reinterpret_cast<const MemoryMapEntry*>(info.memory_map);
  if (info.version < 1 || !entries || !info.memory_map_count)
    die_early("kelda: the loader gave no memory map (PVH version 1 is needed)\n");
  for (std::uint32_t i = 0; i < info.memory_map_count && g_range_count < kMaxRanges; ++i) {
    if (entries[i].type != kMemoryRam) continue;
    std::uint64_t begin = round_up(entries[i].address, kPageBytes);
    std::uint64_t end = round_down(entries[i].address + entries[i].size_bytes, kPageBytes);
    if (begin < end) g_ranges[g_range_count++] = {begin, end};
  }
  for (std::size_t i = 1; i < g_range_count; ++i) {
    for (std::size_t j = i; j > 0 && g_ranges[j].begin < g_ranges[j - 1].begin; --j) {
      RamRange range = g_ranges[j];
      g_ranges[j] = g_ranges[j - 1];
      g_ranges[j - 1] = range;
    }
  }
}

std::uint64_t take_one() {
  std::uint64_t frame = g_map.lowest();
  if (frame == kNoFrame) return frame;
  g_map.erase(frame);
  --g_free;
  return frame;
}

void give_one(PhysAddr frame) {
  KERNEL_CHECK(frame.value % kPageBytes == 0 && !g_map.contains(frame.value / kPageBytes));
  g_map.insert(frame.value / kPageBytes);
  ++g_free;
}

}  // namespace

RamRanges ram_ranges() {
  return {g_ranges, g_range_count};
}

void init_frames(const StartInfo& info) {
  read_memory_map(info);
  auto image_begin = reinterpret_cast<std::uint64_t>(__ehdr_start);
  std::uint64_t image_end = round_up(reinterpret_cast<std::uint64_t>(_end), kPageBytes);
  std::uint64_t top = 0, home_end = 0;
  for (std::size_t i = 0; i < g_range_count; ++i) {
    top = g_ranges[i].end;
    g_total += (g_ranges[i].end - g_ranges[i].begin) / kPageBytes;
    if (g_ranges[i].begin <= image_begin && image_end <= g_ranges[i].end) home_end = g_ranges[i].end;
  }
  std::size_t map_bytes = round_up(FrameMap::storage_bytes(top / kPageBytes), kPageBytes);
  // The boot tables reach 4 GiB; the range with the image lies below.
  if (home_end < image_end + map_bytes + 4_MiB)
    die_early("kelda: too little memory for the program; give the machine more (64 MiB is enough)\n");
  auto* storage = reinterpret_cast<std::uint64_t*>(image_end);
  std::memset(storage, 0, map_bytes);
  g_map.init(storage, top / kPageBytes);
  for (std::size_t i = 0; i < g_range_count; ++i) {
    auto add = [](std::uint64_t begin, std::uint64_t end) {
      if (begin < kLowMemoryEnd) begin = kLowMemoryEnd;
      if (begin >= end) return;
      g_map.insert_run(begin / kPageBytes, end / kPageBytes);
      g_free += (end - begin) / kPageBytes;
    };
    if (g_ranges[i].end == home_end) {
      add(g_ranges[i].begin, image_begin);
      add(image_end + map_bytes, home_end);
    } else {
      add(g_ranges[i].begin, g_ranges[i].end);
    }
  }
}

std::optional<PhysAddr> alloc_frame() {
  std::uint64_t frame;
  {
    LockGuard guard(g_lock);
    frame = take_one();
  }
  if (frame == kNoFrame) return std::nullopt;
  return PhysAddr(frame * kPageBytes);
}

std::optional<PhysAddr> alloc_frames_contiguous(std::size_t page_count, std::size_t align_bytes) {
  KERNEL_CHECK(page_count > 0 && align_bytes >= kPageBytes && (align_bytes & (align_bytes - 1)) == 0);
  LockGuard guard(g_lock);
  std::uint64_t begin = g_map.find_run(page_count, align_bytes / kPageBytes);
  if (begin == kNoFrame) return std::nullopt;
  for (std::uint64_t i = 0; i < page_count; ++i) g_map.erase(begin + i);
  g_free -= page_count;
  return PhysAddr(begin * kPageBytes);
}

std::size_t alloc_frames(std::span<PhysAddr> out) {
  // Batches keep the time with interrupts off short.
  constexpr std::size_t kBatch = 256;
  std::size_t count = 0;
  while (count < out.size()) {
    LockGuard guard(g_lock);
    for (std::size_t i = 0; i < kBatch && count < out.size(); ++i) {
      std::uint64_t frame = take_one();
      if (frame == kNoFrame) return count;
      out[count++] = PhysAddr(frame * kPageBytes);
    }
  }
  return count;
}

void free_frame(PhysAddr frame) {
  LockGuard guard(g_lock);
  give_one(frame);
}

void free_frames_contiguous(PhysAddr first, std::size_t page_count) {
  LockGuard guard(g_lock);
  for (std::size_t i = 0; i < page_count; ++i) give_one(PhysAddr(first.value + i * kPageBytes));
}

void free_frames(std::span<const PhysAddr> frames) {
  for (PhysAddr frame : frames) free_frame(frame);
}

void zero_frame(PhysAddr frame) {
  auto* words = reinterpret_cast<std::uint64_t*>(frame.value);
  for (std::size_t i = 0; i < kPageBytes / sizeof(std::uint64_t); i += 8) {
    words[i] = 0;
    words[i + 1] = 0;
    words[i + 2] = 0;
    words[i + 3] = 0;
    words[i + 4] = 0;
    words[i + 5] = 0;
    words[i + 6] = 0;
    words[i + 7] = 0;
  }
}

MemoryStats memory_stats() {
  LockGuard guard(g_lock);
  return {g_total, g_free, limbo_page_count()};
}

}  // namespace kelda::kernel
