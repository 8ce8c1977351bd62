// All CPUs allocate, grow, discard, hand over and free each other's memory at once; every block carries a pattern that
// is checked at each step. What a stale translation, a lost zeroing or a frame given out twice would break.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "kernel/cpu.h"
#include "kernel/kernel.h"
#include "kernel/memory.h"
#include "kernel/paging.h"

namespace kelda::kernel {
namespace {

struct Block {
  std::uint64_t* words = nullptr;
  std::size_t pages = 0;
  std::uint64_t stamp = 0;
};

constexpr std::size_t kWordsPerPage = kPageBytes / sizeof(std::uint64_t);

std::size_t bytes_of(std::size_t pages) {
  return pages * kPageBytes;
}

class Worker {
 public:
  Worker(std::uint32_t index, std::vector<std::atomic<Block*>>& exchange)
      : random_(index), index_(index), exchange_(exchange) {}

  void run(int steps) {
    for (int i = 0; i < steps; ++i) step();
    for (Block& block : blocks_) release(block);
    blocks_.clear();
  }
  std::uint64_t wrong() const { return wrong_; }

 private:
  void step() {
    if (blocks_.size() < 24 || random_() % 4 == 0) {
      allocate();
      return;
    }
    std::size_t at = random_() % blocks_.size();
    Block& block = blocks_[at];
    check(block);
    switch (random_() % 6) {
      case 0:
        hand_over(block);
        break;
      case 1:
        discard(block);
        break;
      case 2:
        grow(block);
        break;
      case 3:
        protect(block);
        break;
      default:
        release(block);
        block = blocks_.back();
        blocks_.pop_back();
    }
  }

  void fill(Block& block) {
    block.stamp = random_() << 8 | index_;
    for (std::size_t page = 0; page < block.pages; ++page) {
      block.words[page * kWordsPerPage + 7] = block.stamp + page;
      block.words[page * kWordsPerPage + 500] = ~block.stamp;
    }
  }

  void check(const Block& block) {
    for (std::size_t page = 0; page < block.pages; ++page) {
      wrong_ += block.words[page * kWordsPerPage + 7] != block.stamp + page;
      wrong_ += block.words[page * kWordsPerPage + 500] != ~block.stamp;
    }
  }

  void check_zero(const std::uint64_t* words, std::size_t pages) {
    for (std::size_t page = 0; page < pages; ++page) {
      for (std::size_t word : {0, 7, 500, 511}) wrong_ += words[page * kWordsPerPage + word] != 0;
    }
  }

  void allocate() {
    std::size_t pages = 1 + random_() % 24;
    void* memory = mmap(nullptr, bytes_of(pages), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    Block block{static_cast<std::uint64_t*>(memory), pages, 0};
    check_zero(block.words, pages);
    fill(block);
    blocks_.push_back(block);
  }

  void release(Block& block) {
    check(block);
    munmap(block.words, bytes_of(block.pages));
  }

  // Swaps the block with whatever lies in a slot that all workers share.
  void hand_over(Block& block) {
    auto* given = new Block(block);
    // Acquire and release: the block's content travels with it.
    Block* taken = exchange_[random_() % exchange_.size()].exchange(given, std::memory_order_acq_rel);
    if (taken) {
      check(*taken);
      block = *taken;
      delete taken;
    } else {
      block = blocks_.back();
      blocks_.pop_back();
    }
  }

  void discard(Block& block) {
    madvise(block.words, bytes_of(block.pages), MADV_DONTNEED);
    check_zero(block.words, block.pages);
    fill(block);
  }

  void grow(Block& block) {
    if (block.pages > 64) return;
    void* memory = mremap(block.words, bytes_of(block.pages), bytes_of(block.pages + 5), MREMAP_MAYMOVE);
    ASSERT_NE(memory, MAP_FAILED);
    block.words = static_cast<std::uint64_t*>(memory);
    check(block);
    check_zero(block.words + block.pages * kWordsPerPage, 5);
    block.pages += 5;
    fill(block);
  }

  void protect(Block& block) {
    mprotect(block.words, bytes_of(block.pages), PROT_NONE);
    mprotect(block.words, bytes_of(block.pages), PROT_READ | PROT_WRITE);
    check(block);
  }

  std::mt19937_64 random_;
  std::uint64_t index_;
  std::vector<std::atomic<Block*>>& exchange_;
  std::vector<Block> blocks_;
  std::uint64_t wrong_ = 0;
};

TEST(KernelStress, CpusShareMemoryWithoutLosingAByte) {
  std::uint32_t cpus = running_bare() ? cpu_count() : std::min(4u, std::thread::hardware_concurrency());
  std::uint64_t free_before = running_bare() ? memory_stats().free_page_count : 0;
  std::vector<std::atomic<Block*>> exchange(8);
  std::atomic<std::uint64_t> wrong{0};
  auto run = [&](std::uint32_t index) {
    Worker worker(index, exchange);
    worker.run(2000);
    wrong += worker.wrong();
  };
  std::vector<std::thread> threads;
  for (std::uint32_t i = 1; i < cpus; ++i) threads.emplace_back(run, i);
  run(0);
  for (auto& thread : threads) thread.join();
  for (auto& slot : exchange) {
    if (Block* block = slot.load()) {
      munmap(block->words, bytes_of(block->pages));
      delete block;
    }
  }
  EXPECT_EQ(wrong.load(), 0u);
  if (!running_bare()) return;
  flush_all_local();
  MemoryStats stats = memory_stats();
  EXPECT_GE(stats.free_page_count + stats.limbo_page_count + 600, free_before)
      << "tables and heaps stay, blocks do not";
}

// A CPU that is just waking up has been counted as asleep by whoever replaces memory, and has not flushed yet.
TEST(KernelStress, MemoryIsReplacedWhileAnotherCpuFallsAsleepAndWakes) {
  std::uint32_t cpus = running_bare() ? cpu_count() : std::thread::hardware_concurrency();
  if (cpus < 2) GTEST_SKIP() << "needs two CPUs";
  std::atomic<bool> ended{false};
  std::thread sleeper([&] {
    while (!ended.load()) std::this_thread::sleep_for(std::chrono::microseconds(20));
  });
  constexpr std::size_t kPages = 4;
  std::uint64_t wrong = 0;
  void* memory = mmap(nullptr, bytes_of(kPages), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_NE(memory, MAP_FAILED);
  auto* words = static_cast<volatile std::uint64_t*>(memory);
  for (std::uint64_t round = 1; round <= 20'000; ++round) {
    for (std::size_t page = 0; page < kPages; ++page) {
      wrong += words[page * kWordsPerPage] != 0;
      words[page * kWordsPerPage] = round;
    }
    void* replaced =
        mmap(memory, bytes_of(kPages), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (replaced != memory) ++wrong;
  }
  ended.store(true);
  sleeper.join();
  EXPECT_EQ(wrong, 0u);
  munmap(memory, bytes_of(kPages));
}

}  // namespace
}  // namespace kelda::kernel
