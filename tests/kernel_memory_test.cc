// Memory on the bare machine: what the program gets from the shim, and what the layers above get from kernel/.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "kernel/cpu.h"
#include "kernel/cpu_state.h"
#include "kernel/demand.h"
#include "kernel/kernel.h"
#include "kernel/memory.h"
#include "kernel/paging.h"
#include "kernel/tables.h"

extern "C" char __executable_start[], __etext[], _end[];

namespace kelda::kernel {
namespace {

class KernelMemory : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!running_bare()) GTEST_SKIP() << "needs the bare machine";
  }
  static std::uint64_t free_pages() {
    flush_all_local();
    MemoryStats stats = memory_stats();
    return stats.free_page_count + stats.limbo_page_count;
  }
};

std::byte* map_pages(std::size_t count, int prot = PROT_READ | PROT_WRITE) {
  void* memory = mmap(nullptr, count * kPageBytes, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
}

TEST_F(KernelMemory, FramesComeWithTheFirstTouchAndReadAsZero) {
  constexpr std::size_t kPages = 512;
  std::byte* memory = map_pages(kPages);
  ASSERT_NE(memory, nullptr);
  std::uint64_t before = free_pages();
  for (std::size_t i = 0; i < kPages; i += 2) {
    for (std::size_t at = 0; at < kPageBytes; at += 64) ASSERT_EQ(memory[i * kPageBytes + at], std::byte{0});
    memory[i * kPageBytes] = std::byte{1};
  }
  std::uint64_t used = before - free_pages();
  EXPECT_GE(used, kPages / 2);
  EXPECT_LE(used, kPages / 2 + 4) << "untouched pages must not cost frames";
  ASSERT_EQ(munmap(memory, kPages * kPageBytes), 0);
  EXPECT_GE(free_pages() + 4, before) << "unmapping gives the frames back";
}

TEST_F(KernelMemory, DiscardedMemoryReadsAsZeroAndGivesFramesBack) {
  std::byte* memory = map_pages(64);
  std::memset(memory, 0x5a, 64 * kPageBytes);
  std::uint64_t before = free_pages();
  ASSERT_EQ(madvise(memory, 64 * kPageBytes, MADV_DONTNEED), 0);
  EXPECT_EQ(free_pages(), before + 64);
  for (std::size_t i = 0; i < 64 * kPageBytes; i += 512) ASSERT_EQ(memory[i], std::byte{0});
  munmap(memory, 64 * kPageBytes);
}

TEST_F(KernelMemory, AddressesAreUsedAgain) {
  std::byte* first = map_pages(16);
  munmap(first, 16 * kPageBytes);
  for (int i = 0; i < 100; ++i) {
    std::byte* again = map_pages(16);
    ASSERT_EQ(again, first);
    again[0] = std::byte{1};
    munmap(again, 16 * kPageBytes);
  }
}

TEST_F(KernelMemory, ProtectionNoneKeepsContent) {
  std::byte* memory = map_pages(2);
  memory[kPageBytes] = std::byte{7};
  ASSERT_EQ(mprotect(memory, 2 * kPageBytes, PROT_NONE), 0);
  EXPECT_FALSE(translate(memory + kPageBytes));
  ASSERT_EQ(mprotect(memory, 2 * kPageBytes, PROT_READ | PROT_WRITE), 0);
  EXPECT_EQ(memory[kPageBytes], std::byte{7});
  munmap(memory, 2 * kPageBytes);
}

// A thousand fiber stacks with a guard each, as runtime/ makes them.
TEST_F(KernelMemory, AThousandGuardedStacks) {
  constexpr std::size_t kStackPages = 17;
  std::uint64_t before = free_pages();
  std::size_t areas = demand_area_count();
  std::vector<std::byte*> stacks;
  for (int i = 0; i < 1000; ++i) {
    std::byte* stack = map_pages(kStackPages);
    ASSERT_NE(stack, nullptr);
    ASSERT_EQ(mprotect(stack, kPageBytes, PROT_NONE), 0);
    stack[kStackPages * kPageBytes - 1] = std::byte{1};
    stacks.push_back(stack);
  }
  EXPECT_LE(before - free_pages(), 1000 + 1000 * kStackPages / 512 + 64);
  for (std::byte* stack : stacks) ASSERT_EQ(munmap(stack, kStackPages * kPageBytes), 0);
  EXPECT_LE(demand_area_count(), areas + 2);
  EXPECT_GE(free_pages() + 64, before) << "only tables and the list's own pages may stay";
}

// Runs the function with its stack pointer at `top`, a multiple of 16.
void call_on_stack(std::byte* top, void (*function)()) {
  asm volatile("mov %%rsp, %%rbx\n\tmov %0, %%rsp\n\tcall *%1\n\tmov %%rbx, %%rsp"
               : "+S"(top), "+D"(function)
               :
               : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "memory", "cc");
}

// Calls `attempt`, which says whether it worked, from each place of a stack page below which none is present yet.
void from_everywhere_on_a_stack_page(bool (*attempt)()) {
  constexpr std::size_t kPages = 8;
  static bool (*attempted)();
  static bool worked;
  attempted = attempt;
  for (std::size_t used = 0; used < kPageBytes; used += 16) {
    std::byte* const stack = map_pages(kPages);
    ASSERT_NE(stack, nullptr);
    worked = false;
    call_on_stack(stack + kPages * kPageBytes - used, [] { worked = attempted(); });
    ASSERT_TRUE(worked) << used;
    ASSERT_EQ(munmap(stack, kPages * kPageBytes), 0);
  }
}

// The kernel runs on its caller's stack, and the next page of that may be missing just then: under the lock of the areas,
// and that of the frames, the page fault would wait for ever.
TEST_F(KernelMemory, CallsMayComeFromTheLastBytesOfAStackPage) {
  from_everywhere_on_a_stack_page([] {
    std::byte* const memory = map_pages(1);
    return memory != nullptr && munmap(memory, kPageBytes) == 0;
  });
  from_everywhere_on_a_stack_page([] {
    const auto frame = alloc_frames_contiguous(1, kPageBytes);
    if (frame) free_frames_contiguous(*frame, 1);
    return frame.has_value();
  });
  constexpr std::size_t kPages = kPageBytes / 16;  // one for each place
  static std::byte* missing;
  missing = map_pages(kPages);
  std::byte* const memory = missing;
  ASSERT_NE(memory, nullptr);
  from_everywhere_on_a_stack_page([] { return populate(std::exchange(missing, missing + kPageBytes), kPageBytes).has_value(); });
  ASSERT_EQ(munmap(memory, kPages * kPageBytes), 0);
}

// Those of interrupts and exceptions, and those on which CPUs idle; and the one that the machine was started on.
TEST_F(KernelMemory, EveryStackOfTheKernelHasAGuard) {
  const auto at = [](std::uint64_t address) { return reinterpret_cast<const void*>(address); };
  for (std::uint32_t cpu = 0; cpu < cpu_count(); ++cpu) {
    std::vector<std::uint64_t> tops{g_cpus[cpu].idle_stack_top};
    for (std::size_t slot = 0; slot < kStackSlots; ++slot) tops.push_back(g_cpus[cpu].task_state.stacks[slot]);
    for (const std::uint64_t top : tops) {
      for (std::uint64_t page = top - kKernelStackBytes; page < top; page += kPageBytes) EXPECT_TRUE(translate(at(page)));
      EXPECT_FALSE(translate(at(top - kKernelStackBytes - 1))) << "cpu " << cpu << ", stack below " << std::hex << top;
    }
  }
  EXPECT_FALSE(translate(kelda_boot_stack_guard));
  EXPECT_TRUE(translate(kelda_boot_stack_guard + kPageBytes));
}

TEST_F(KernelMemory, GrowingABlockMovesItWithoutLosingContent) {
  std::size_t size = 256 * kPageBytes;
  auto* memory =
      static_cast<std::byte*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::byte* obstacle = map_pages(1);
  for (std::size_t i = 0; i < size; i += kPageBytes) memory[i] = static_cast<std::byte>(i / kPageBytes);
  auto* grown = static_cast<std::byte*>(mremap(memory, size, 2 * size, MREMAP_MAYMOVE));
  ASSERT_NE(grown, MAP_FAILED);
  for (std::size_t i = 0; i < size; i += kPageBytes) ASSERT_EQ(grown[i], static_cast<std::byte>(i / kPageBytes));
  for (std::size_t i = size; i < 2 * size; i += kPageBytes) ASSERT_EQ(grown[i], std::byte{0});
  munmap(grown, 2 * size);
  munmap(obstacle, kPageBytes);
}

TEST_F(KernelMemory, LargeAllocationsWorkAndAbsurdOnesFail) {
  auto stats = memory_stats();
  std::size_t large = stats.free_page_count / 4 * kPageBytes;
  auto memory = std::make_unique_for_overwrite<std::byte[]>(large);
  for (std::size_t i = 0; i < large; i += kPageBytes) memory[i] = std::byte{1};
  EXPECT_EQ(std::malloc(stats.total_page_count * kPageBytes), nullptr);
  EXPECT_EQ(map_pages(memory_stats().free_page_count + 100), nullptr);
  std::byte* fits = map_pages(memory_stats().free_page_count / 2);
  EXPECT_NE(fits, nullptr);
  munmap(fits, memory_stats().free_page_count / 2 * kPageBytes);
}

// Arrays indexed by page number: as large as the disk asks, touched here and there.
TEST_F(KernelMemory, HugeSparseAreasAreCheap) {
  constexpr std::size_t kBytes = 1024_GiB;
  std::uint64_t before = free_pages();
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* bytes = static_cast<std::byte*>(memory);
  for (std::size_t at = 0; at < kBytes; at += 128_GiB) bytes[at] = std::byte{1};
  ASSERT_EQ(munmap(memory, kBytes), 0);
  EXPECT_LE(before - free_pages(), 3u * 8 + 4) << "tables stay, frames do not";
}

TEST_F(KernelMemory, ContiguousFramesAreAlignedAndComeBack) {
  std::uint64_t before = free_pages();
  auto frames = alloc_frames_contiguous(16, 64_KiB);
  ASSERT_TRUE(frames);
  EXPECT_EQ(frames->value % 64_KiB, 0u);
  std::memset(frame_pointer(*frames), 0xff, 16 * kPageBytes);
  free_frames_contiguous(*frames, 16);
  EXPECT_EQ(free_pages(), before);
  EXPECT_FALSE(alloc_frames_contiguous(memory_stats().total_page_count));
}

TEST_F(KernelMemory, FramesForThePoolAreDistinct) {
  std::vector<PhysAddr> frames(1000);
  std::uint64_t before = free_pages();
  ASSERT_EQ(alloc_frames(frames), 1000u);
  EXPECT_EQ(free_pages(), before - 1000);
  for (std::size_t i = 1; i < frames.size(); ++i) ASSERT_LT(frames[i - 1].value, frames[i].value);
  free_frames(frames);
  EXPECT_EQ(free_pages(), before);
}

TEST_F(KernelMemory, TranslateSeesEveryKindOfMemory) {
  static int in_image = 1;
  EXPECT_EQ(translate(&in_image)->value, reinterpret_cast<std::uint64_t>(&in_image));
  EXPECT_FALSE(translate(nullptr));
  std::byte* memory = map_pages(4);
  EXPECT_FALSE(translate(memory)) << "not touched yet";
  ASSERT_TRUE(populate(memory + 100, 2 * kPageBytes));
  for (int page = 0; page < 3; ++page) {
    auto phys = translate(memory + page * kPageBytes + 5);
    ASSERT_TRUE(phys);
    memory[page * kPageBytes + 5] = std::byte{0x77};
    EXPECT_EQ(*frame_pointer(*phys), std::byte{0x77});
  }
  EXPECT_FALSE(translate(memory + 3 * kPageBytes));
  munmap(memory, 4 * kPageBytes);
  EXPECT_TRUE(populate(memory, 1).failed_with(Code::kInvalidArgument));
}

TEST_F(KernelMemory, ImageIsWritableOrExecutableNeverBoth) {
  auto image_end = reinterpret_cast<VirtAddr>(_end);
  bool saw_code = false, saw_data = false;
  for (auto page = reinterpret_cast<VirtAddr>(__executable_start); page < image_end; page += kPageBytes) {
    Mapping mapping = find_mapping(page);
    if (!mapping.entry) continue;
    bool writable = mapping.entry & kPteWritable, executable = !(mapping.entry & kPteNoExecute);
    ASSERT_FALSE(writable && executable) << std::hex << page;
    ASSERT_EQ(mapping.size_bytes, kPageBytes);
    saw_code |= executable;
    saw_data |= writable;
  }
  EXPECT_TRUE(saw_code);
  EXPECT_TRUE(saw_data);
  EXPECT_TRUE(find_mapping(image_end + 8_MiB).entry & kPteNoExecute);
  EXPECT_FALSE(find_mapping(0).entry) << "page 0 stays unmapped";
  EXPECT_TRUE(mmap(nullptr, kPageBytes, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
}

TEST_F(KernelMemory, ReservedRegionTakesEntriesFromItsOwner) {
  auto region = reserve_region(1_GiB);
  ASSERT_TRUE(region);
  EXPECT_EQ(*region % kRegionAlignBytes, 0u);
  EXPECT_EQ(pte_for(*region + 5 * kPageBytes, false), nullptr);
  PhysAddr frame = *alloc_frame();
  ASSERT_TRUE(map_page(*region + 5 * kPageBytes, frame));
  EXPECT_TRUE(map_page(*region + 5 * kPageBytes, frame).failed_with(Code::kExists));
  auto* page = reinterpret_cast<volatile std::uint64_t*>(*region + 5 * kPageBytes);
  std::atomic<std::uint64_t>* entry = pte_for(*region + 5 * kPageBytes, false);
  ASSERT_NE(entry, nullptr);
  page[3] = 42;
  EXPECT_TRUE(entry->load() & kPteDirty);
  entry->fetch_and(~(kPteDirty | kPteAccessed));
  invalidate_page(*region + 5 * kPageBytes);
  EXPECT_EQ(page[3], 42u);
  EXPECT_TRUE(entry->load() & kPteAccessed);
  EXPECT_FALSE(entry->load() & kPteDirty);
  EXPECT_EQ(translate(const_cast<std::uint64_t*>(&page[3]))->value, frame.value + 24);
  EXPECT_EQ(unmap_page(*region + 5 * kPageBytes), frame);
  EXPECT_EQ(unmap_page(*region + 5 * kPageBytes), std::nullopt);
  free_frame(frame);
}

// One program sets the range once, so this is one test: loads of several kinds, and other CPUs at the same time.
TEST_F(KernelMemory, OptimisticLoadsOfAbsentPagesAreHarmless) {
  VirtAddr region = *reserve_region(1_GiB);
  PhysAddr frame = *alloc_frame();
  ASSERT_TRUE(map_page(region, frame));
  ASSERT_TRUE(set_optimistic_range(region, 1_GiB));
  auto* words = reinterpret_cast<volatile std::uint64_t*>(region);
  words[0] = 42;
  std::uint64_t before = optimistic_fault_count();
  EXPECT_EQ(words[512], 0u) << "no table entry";
  EXPECT_EQ(words[100'000'000], 0u) << "no table";
  EXPECT_EQ(words[0], 42u);
  EXPECT_GE(optimistic_fault_count(), before + 2);

  // Two memory operands, one of them demand-zero; and a vector load that crosses into the absent page.
  std::byte* fresh = map_pages(1);
  asm volatile("movsq" ::"S"(region + kPageBytes), "D"(fresh) : "memory");
  EXPECT_EQ(fresh[0], std::byte{0});
  std::uint64_t pair[2] = {1, 1};
  asm volatile("movdqu (%0), %%xmm0; movdqu %%xmm0, (%1)" ::"r"(region + kPageBytes - 8), "r"(pair) : "xmm0", "memory");
  EXPECT_EQ(pair[1], 0u);
  std::uint64_t flags;
  asm volatile("pushfq; popq %0" : "=r"(flags));
  EXPECT_TRUE(flags & 1 << 9) << "interrupts are on again";
  EXPECT_FALSE(flags & 1 << 8);

  munmap(fresh, kPageBytes);
  if (cpu_count() < 2) return;
  // A reader races an evictor that clears and sets the entry.
  std::atomic<bool> stop{false};
  std::thread evictor([&] {
    auto* entry = pte_for(region, false);
    while (!stop) {
      std::uint64_t old = entry->exchange(0);
      invalidate_page(region);
      entry->store(old);
    }
  });
  for (int i = 0; i < 20'000; ++i) {
    invalidate_page(region);
    std::uint64_t seen = words[0];
    ASSERT_TRUE(seen == 42 || seen == 0);
  }
  stop = true;
  evictor.join();
}

// Memory that one CPU unmaps and maps again must never show another CPU its old frame (tlb.h, T1 and T2). The other CPU
// makes no system call in between.
TEST_F(KernelMemory, OtherCpusNeverSeeStaleFrames) {
  if (cpu_count() < 2) GTEST_SKIP();
  constexpr std::size_t kPages = 8;
  constexpr std::uint64_t kRounds = 400;
  std::atomic<std::uint64_t*> shared{nullptr};
  std::atomic<std::uint64_t> round{0}, seen{0}, wrong{0};
  std::thread reader([&] {
    for (std::uint64_t r = 1; r <= kRounds; ++r) {
      while (round.load(std::memory_order_acquire) != r) __builtin_ia32_pause();
      std::uint64_t* words = shared.load(std::memory_order_relaxed);
      for (std::size_t i = 0; i < kPages; ++i) wrong += words[i * 512] != r;
      for (std::size_t i = 0; i < kPages; ++i) words[i * 512 + 1] = r;  // dirties the frame for its next owner
      seen.store(r, std::memory_order_release);
    }
  });
  std::byte* memory = map_pages(kPages);
  for (std::uint64_t r = 1; r <= kRounds; ++r) {
    auto* words = reinterpret_cast<std::uint64_t*>(memory);
    for (std::size_t i = 0; i < kPages; ++i) {
      ASSERT_EQ(words[i * 512 + 1], 0u) << "memory that was given back reads as zero";
      words[i * 512] = r;
    }
    shared.store(words, std::memory_order_relaxed);
    round.store(r, std::memory_order_release);
    while (seen.load(std::memory_order_acquire) != r) __builtin_ia32_pause();
    if (r % 2) {
      madvise(memory, kPages * kPageBytes, MADV_DONTNEED);
    } else {
      munmap(memory, kPages * kPageBytes);
      memory = map_pages(kPages);
    }
  }
  reader.join();
  EXPECT_EQ(wrong.load(), 0u);
  munmap(memory, kPages * kPageBytes);
}

// The heap does this: one CPU gives memory back, another one that has used it before writes to it again.
TEST_F(KernelMemory, AWriteThroughAnOldTranslationIsNotLost) {
  if (cpu_count() < 2) GTEST_SKIP() << "needs two CPUs";
  constexpr std::size_t kPages = 8;
  constexpr std::uint64_t kRounds = 200;
  std::atomic<std::byte*> shared{map_pages(kPages)};
  std::atomic<std::uint64_t> round{0}, written{0};
  std::thread writer([&] {  // makes no system call and takes no interrupt between its rounds
    for (std::uint64_t r = 1; r <= kRounds; ++r) {
      while (round.load(std::memory_order_acquire) != r) __builtin_ia32_pause();
      auto* words = reinterpret_cast<std::uint64_t*>(shared.load(std::memory_order_relaxed));
      for (std::size_t i = 0; i < kPages; ++i) words[i * 512] = r;
      written.store(r, std::memory_order_release);
    }
  });
  std::uint64_t wrong = 0;
  for (std::uint64_t r = 1; r <= kRounds; ++r) {
    round.store(r, std::memory_order_release);
    while (written.load(std::memory_order_acquire) != r) __builtin_ia32_pause();
    std::byte* memory = shared.load(std::memory_order_relaxed);
    for (std::size_t i = 0; i < kPages; ++i) wrong += reinterpret_cast<std::uint64_t*>(memory)[i * 512] != r;
    if (r % 2) {
      madvise(memory, kPages * kPageBytes, MADV_DONTNEED);
    } else {
      munmap(memory, kPages * kPageBytes);
      shared.store(map_pages(kPages), std::memory_order_relaxed);
    }
  }
  writer.join();
  EXPECT_EQ(wrong, 0u);
  munmap(shared.load(), kPages * kPageBytes);
}

}  // namespace
}  // namespace kelda::kernel
