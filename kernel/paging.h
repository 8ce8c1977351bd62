// Page tables: one address space, shared by all CPUs (boot-time layout: kernel.h).
//
// Two kinds of virtual memory live side by side:
//  - demand-zero areas (program break and mmap): populated by the page-fault handler, owned by demand.h;
//  - regions from reserve_region() and map_mmio(): entries exist only where their owner writes them.
//
// Invariants
//  P1. No interrupt is ever sent to make other CPUs forget a translation. Whoever clears or changes an entry of a
//      reserved region is responsible for not reusing the frame or the address until the others have flushed.
//  P2. Table pages below a reserved region are never freed: pte_for() pointers stay valid for ever.
//  P3. The top-level table's entries for the regions exist from boot on or are added to every table (main and
//  alternate).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "common/result.h"
#include "common/types.h"

namespace kelda::kernel {

using VirtAddr = std::uintptr_t;

// Entry bits as the processor defines them (Intel SDM vol. 3, 4.5).
inline constexpr std::uint64_t kPtePresent = 1u << 0;
inline constexpr std::uint64_t kPteWritable = 1u << 1;
inline constexpr std::uint64_t kPteWriteThrough = 1u << 3;
inline constexpr std::uint64_t kPteNoCache = 1u << 4;
inline constexpr std::uint64_t kPteAccessed = 1u << 5;
inline constexpr std::uint64_t kPteDirty = 1u << 6;
inline constexpr std::uint64_t kPteLarge = 1u << 7;
inline constexpr std::uint64_t kPteGlobal = 1u << 8;
inline constexpr std::uint64_t kPteNoExecute = 1ull << 63;
inline constexpr std::uint64_t kPteFrameMask = 0x000f'ffff'ffff'f000;
// What an entry for ordinary data carries.
inline constexpr std::uint64_t kPteData = kPtePresent | kPteWritable | kPteNoExecute;

inline constexpr VirtAddr kHeapBase = 0x0800'0000'0000;
inline constexpr VirtAddr kMmapBase = 0x1000'0000'0000;
inline constexpr VirtAddr kMmapEnd = 0x2000'0000'0000;
inline constexpr VirtAddr kReservedBase = 0x2000'0000'0000;
inline constexpr VirtAddr kReservedEnd = 0x6000'0000'0000;
inline constexpr VirtAddr kMmioBase = 0x7000'0000'0000;
inline constexpr VirtAddr kMmioEnd = 0x7800'0000'0000;
// A reserved region starts at a multiple of this: the reach of one top-level entry.
inline constexpr std::size_t kRegionAlignBytes = 512_GiB;

// Address space without frames, at a multiple of kRegionAlignBytes, never given back. kOutOfMemory when none is left.
Result<VirtAddr> reserve_region(std::size_t size_bytes);

// The 4 KiB entry of a page in a reserved region. With `create` the tables above it are made (null only when memory is
// exhausted), without it null means that no table covers the page. The pointer stays valid (P2); entries are read and
// written atomically because the processor sets accessed and dirty bits at any time. Thread-safe.
std::atomic<std::uint64_t>* pte_for(VirtAddr page, bool create);

// Maps one page of a reserved region; `flags` as in kPteData. Fails with kExists when something is mapped there and
// kOutOfMemory when a table cannot be had.
Result<> map_page(VirtAddr page, PhysAddr frame, std::uint64_t flags = kPteData);
// Unmaps one page, invalidates it on this CPU (P1 for the others) and returns its frame, if it was mapped.
std::optional<PhysAddr> unmap_page(VirtAddr page);

// The physical address behind any mapped address (RAM, image, heap, stacks, reserved regions, MMIO); nothing when it is
// not populated. For DMA populate() first; each page must be translated for itself.
std::optional<PhysAddr> translate(const volatile void* address);
// Makes sure that demand-zero memory in [address, address + size) has frames, so that translate() answers and a device
// may write there. Memory of other kinds is left as it is. kInvalidArgument for addresses where nothing may live,
// kOutOfMemory when frames run out.
Result<> populate(const void* address, std::size_t size_bytes);

// Device registers, uncached and never executable. Mappings are permanent. `phys` needs no alignment.
Result<volatile void*> map_mmio(PhysAddr phys, std::size_t size_bytes);

inline void invalidate_page(VirtAddr page) {
  asm volatile("invlpg (%0)" ::"r"(page) : "memory");
}
// Forgets every translation that is not global (the identity map is), on this CPU only.
void flush_all_local();

// Epochs, for owners of reserved regions (P1): how to learn that every CPU has forgotten what was unmapped, without an
// interrupt to any. Clear the entries, begin an epoch, and reuse frames or addresses once it has passed. A CPU passes
// when it takes an interrupt, makes a system call, sleeps (it then counts as passed, and flushes before it does
// anything else) or calls pass_unmap_epoch(); one that runs no thread counts as passed.
std::uint64_t begin_unmap_epoch();  // the caller's CPU passes at once
bool unmap_epoch_passed(std::uint64_t epoch);
// For run loops, once a turn: flushes this CPU if an epoch began since its last flush. A load and a compare otherwise.
void pass_unmap_epoch();
// Makes every CPU pass, by interrupt where needed, and waits. For tear-down only.
void force_unmap_epoch(std::uint64_t epoch);

// Invariant 3 of the buffer pool: a *load* in [base, base + size_bytes) through an entry that is not present completes
// harmlessly with zeroes (or with the page's content when it appeared meanwhile). A store there, or any other fault,
// still panics. The range must be one from reserve_region() (whole top-level slots). Call once, before other CPUs use
// it. How: the faulting CPU runs that one instruction on an alternate top-level table, in which the range leads to one
// read-only page of zeroes, with the trap flag set, and is back on the main table at the next instruction.
Result<> set_optimistic_range(VirtAddr base, std::size_t size_bytes);
// Loads that were completed in this way since boot, all CPUs.
std::uint64_t optimistic_fault_count();

}  // namespace kelda::kernel
