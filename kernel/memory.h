// Physical memory in frames of 4 KiB (kPageBytes).
//
// Contract: every frame of RAM that the image, the firmware and the kernel itself do not occupy is either free or owned
// by whoever took it. All RAM is identity-mapped: a frame's address is also a pointer to it (frame_pointer). Frames
// come with whatever they held before. Thread-safe, callable with interrupts off, but not from an NMI or a panic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "common/types.h"

namespace kelda::kernel {

// A free frame, or nothing when memory is exhausted.
std::optional<PhysAddr> alloc_frame();
// `page_count` adjacent frames whose address is a multiple of `align_bytes` (a power of two, at least kPageBytes).
std::optional<PhysAddr> alloc_frames_contiguous(std::size_t page_count, std::size_t align_bytes = kPageBytes);
// Fills `out` with frames, ascending where possible, and returns how many it got: the buffer pool takes its share so.
std::size_t alloc_frames(std::span<PhysAddr> out);

void free_frame(PhysAddr frame);
void free_frames_contiguous(PhysAddr first, std::size_t page_count);
void free_frames(std::span<const PhysAddr> frames);

// Zeroes a whole frame without vector registers.
void zero_frame(PhysAddr frame);

inline std::byte* frame_pointer(PhysAddr frame) {
  return reinterpret_cast<std::byte*>(frame.value);
}

struct MemoryStats {
  std::uint64_t total_page_count;  // RAM as the hypervisor described it
  std::uint64_t free_page_count;   // free now
  std::uint64_t limbo_page_count;  // unmapped by the program, free as soon as every CPU has flushed its TLB (paging.h)
};
MemoryStats memory_stats();

}  // namespace kelda::kernel
