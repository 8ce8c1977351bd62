// The one address space: table walks, the identity map, the image's permissions, reserved and device regions.
#include "kernel/paging.h"

#include <elf.h>

#include "kernel/check.h"
#include "kernel/demand.h"
#include "kernel/internal.h"
#include "kernel/machine.h"
#include "kernel/memory.h"
#include "kernel/spinlock.h"
#include "kernel/tables.h"

extern "C" const Elf64_Ehdr __ehdr_start;
extern "C" char _end[];

namespace kelda::kernel {

namespace {

constexpr std::uint64_t kLargeBytes = 2_MiB, kHugeBytes = 1_GiB;
constinit bool g_huge_pages = false;

constinit SpinLock g_region_lock;
constinit VirtAddr g_next_region = kReservedBase;
constinit VirtAddr g_next_kernel = kKernelBase;
constinit VirtAddr g_next_mmio = kMmioBase;

std::uint64_t image_begin() {
  return reinterpret_cast<std::uint64_t>(&__ehdr_start);
}
std::uint64_t image_end() {
  return round_up(reinterpret_cast<std::uint64_t>(_end), kPageBytes);
}

std::uint64_t flags_of_segment(std::uint32_t elf_flags) {
  return kPtePresent | kPteGlobal | (elf_flags & PF_W ? kPteWritable : 0) | (elf_flags & PF_X ? 0 : kPteNoExecute);
}

// What the identity map says about one 4 KiB page; 0 leaves it unmapped.
std::uint64_t identity_flags(std::uint64_t address) {
  if (address == 0 || address == reinterpret_cast<std::uint64_t>(kelda_boot_stack_guard)) return 0;
  if (address < image_begin() || address >= image_end()) return kPteData | kPteGlobal;
  auto* headers = reinterpret_cast<const Elf64_Phdr*>(image_begin() + __ehdr_start.e_phoff);
  for (unsigned i = 0; i < __ehdr_start.e_phnum; ++i) {
    const Elf64_Phdr& header = headers[i];
    if (header.p_type != PT_LOAD) continue;
    std::uint64_t begin = round_down(header.p_vaddr, kPageBytes);
    if (address >= begin && address < header.p_vaddr + header.p_memsz) return flags_of_segment(header.p_flags);
  }
  return 0;
}

void map_identity_block(std::uint64_t block, std::uint64_t* top) {
  bool fine = block == 0 || (block < image_end() && block + kLargeBytes > image_begin());
  if (!fine) {
    std::uint64_t* entry = table_entry(block, TableLevel::kLarge, true, top);
    KERNEL_CHECK(entry);
    if (!*entry) *entry = block | kPteData | kPteGlobal | kPteLarge;
    return;
  }
  for (std::uint64_t page = block; page < block + kLargeBytes; page += kPageBytes) {
    std::uint64_t* entry = table_entry(page, TableLevel::kPage, true, top);
    KERNEL_CHECK(entry);
    if (std::uint64_t flags = identity_flags(page)) *entry = page | flags;
  }
}

void map_identity_range(std::uint64_t begin, std::uint64_t end, std::uint64_t* top) {
  while (begin < end) {
    if (g_huge_pages && begin % kHugeBytes == 0 && begin >= 4_GiB && end - begin >= kHugeBytes) {
      std::uint64_t* entry = table_entry(begin, TableLevel::kHuge, true, top);
      KERNEL_CHECK(entry);
      *entry = begin | kPteData | kPteGlobal | kPteLarge;
      begin += kHugeBytes;
    } else {
      map_identity_block(begin, top);
      begin += kLargeBytes;
    }
  }
}

bool is_reserved(VirtAddr page) {
  return page >= kReservedBase && page < kReservedEnd && page % kPageBytes == 0;
}

// Takes `size_bytes` of address space from a bump pointer.
Result<VirtAddr> take_addresses(VirtAddr& next, VirtAddr end, std::size_t size_bytes, std::size_t align_bytes) {
  LockGuard guard(g_region_lock);
  VirtAddr begin = round_up(next, align_bytes);
  if (begin >= end || end - begin < size_bytes) return Code::kOutOfMemory;
  next = begin + size_bytes;
  return begin;
}

}  // namespace

void init_paging() {
  g_huge_pages = cpuid(0x8000'0001).edx & 1u << 26;
  // The boot tables serve until slot 0 is complete; it is built in the alternate table, whose slot 0 it is as well.
  map_identity_range(0, kLargeBytes, g_alternate_top);
  RamRanges ram = ram_ranges();
  for (std::size_t i = 0; i < ram.count; ++i) {
    // Outwards to 2 MiB: firmware tables share the last block of RAM.
    map_identity_range(round_down(ram.ranges[i].begin, kLargeBytes), round_up(ram.ranges[i].end, kLargeBytes),
                       g_alternate_top);
  }
  for (unsigned slot = 0; slot < top_index(kHeapBase); ++slot) kelda_top_table[slot] = g_alternate_top[slot];
  write_cr3(read_cr3());
}

Result<VirtAddr> reserve_region(std::size_t size_bytes) {
  return take_addresses(g_next_region, kReservedEnd, size_bytes, kRegionAlignBytes);
}

std::atomic<std::uint64_t>* pte_for(VirtAddr page, bool create) {
  KERNEL_CHECK(is_reserved(page));
  std::uint64_t* entry = table_entry(page, TableLevel::kPage, create);
  return entry ? &atomic_entry(entry) : nullptr;
}

Result<> map_page(VirtAddr page, PhysAddr frame, std::uint64_t flags) {
  auto* entry = pte_for(page, true);
  if (!entry) return Code::kOutOfMemory;
  std::uint64_t expected = 0;
  // Release: whoever reaches the page through the entry sees what was written to the frame before.
  if (!entry->compare_exchange_strong(expected, frame.value | flags, std::memory_order_release)) return Code::kExists;
  return {};
}

std::optional<PhysAddr> unmap_page(VirtAddr page) {
  auto* entry = pte_for(page, false);
  if (!entry) return std::nullopt;
  std::uint64_t old = entry->exchange(0, std::memory_order_acq_rel);
  invalidate_page(page);
  if (!(old & kPtePresent)) return std::nullopt;
  return PhysAddr(old & kPteFrameMask);
}

std::optional<PhysAddr> translate(const volatile void* address) {
  auto virt = reinterpret_cast<VirtAddr>(address);
  Mapping mapping = find_mapping(virt);
  if (!mapping.entry) return std::nullopt;
  return PhysAddr((mapping.entry & kPteFrameMask & ~(mapping.size_bytes - 1)) | (virt & (mapping.size_bytes - 1)));
}

Result<> populate(const void* address, std::size_t size_bytes) {
  auto begin = reinterpret_cast<VirtAddr>(address);
  for (VirtAddr page = round_down(begin, kPageBytes); page < begin + size_bytes; page += kPageBytes) {
    if (find_mapping(page).entry || (page >= kReservedBase && page < kKernelEnd)) continue;
    switch (populate_page(page)) {
      case DemandFault::kMapped:
        continue;
      case DemandFault::kNoMemory:
        return Code::kOutOfMemory;
      case DemandFault::kNoArea:
      case DemandFault::kForbidden:
        return Code::kInvalidArgument;
    }
  }
  return {};
}

std::uint64_t make_kernel_stack(std::size_t size_bytes) {
  auto base = take_addresses(g_next_kernel, kKernelEnd, size_bytes + kPageBytes, kPageBytes);
  KERNEL_CHECK(base);
  for (VirtAddr page = *base + kPageBytes; page < *base + kPageBytes + size_bytes; page += kPageBytes) {
    auto frame = alloc_frame();
    std::uint64_t* entry = table_entry(page, TableLevel::kPage, true);
    KERNEL_CHECK(frame && entry);
    *entry = frame->value | kPteData;
  }
  return *base + kPageBytes + size_bytes;
}

std::uint64_t reserve_kernel_addresses(std::size_t size_bytes) {
  auto base = take_addresses(g_next_kernel, kKernelEnd, size_bytes, kPageBytes);
  KERNEL_CHECK(base);
  return *base;
}

Result<volatile void*> map_mmio(PhysAddr phys, std::size_t size_bytes) {
  std::uint64_t first = round_down(phys.value, kPageBytes);
  std::size_t length = round_up(phys.value + size_bytes, kPageBytes) - first;
  VirtAddr base = TRY(take_addresses(g_next_mmio, kMmioEnd, length, kPageBytes));
  for (std::size_t offset = 0; offset < length; offset += kPageBytes) {
    std::uint64_t* entry = table_entry(base + offset, TableLevel::kPage, true);
    if (!entry) return Code::kOutOfMemory;
    *entry = (first + offset) | kPteData | kPteNoCache | kPteWriteThrough;
  }
  return reinterpret_cast<volatile void*>(base + (phys.value - first));
}

void make_executable(std::uint64_t page) {
  std::uint64_t* entry = table_entry(page, TableLevel::kPage, false);
  KERNEL_CHECK(entry);
  *entry = page | kPtePresent | kPteGlobal;
  invalidate_page(page);
}

bool is_image(std::uint64_t begin, std::uint64_t end) {
  return begin >= image_begin() && end <= image_end();
}

bool is_image_text(std::uint64_t address) {
  if (!is_image(address, address + 1)) return false;
  return !(identity_flags(round_down(address, kPageBytes)) & kPteNoExecute) &&
         identity_flags(round_down(address, kPageBytes)) != 0;
}

bool protect_image(std::uint64_t begin, std::uint64_t end, bool writable, bool executable) {
  if (!is_image(begin, end) || (writable && executable)) return false;
  for (std::uint64_t page = begin; page < end; page += kPageBytes) {
    std::uint64_t* entry = table_entry(page, TableLevel::kPage, false);
    if (!entry || !(*entry & kPtePresent)) return false;
    *entry = page | kPtePresent | kPteGlobal | (writable ? kPteWritable : 0) | (executable ? 0 : kPteNoExecute);
    invalidate_page(page);
  }
  return true;
}

}  // namespace kelda::kernel
