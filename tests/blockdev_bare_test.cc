// The bare disk through the block interface, on the disks of tests/drivers_vm.py; skipped elsewhere.
#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "blockdev/blockdev.h"
#include "runtime/core.h"
#include "runtime/platform_bare.h"

namespace kelda::tests {
namespace {

using blockdev::BlockDevice;

struct Buffer {
  explicit Buffer(std::size_t n, int value) : bytes(n), data(static_cast<std::byte*>(std::aligned_alloc(4096, n))) {
    std::memset(data, value, n);
  }
  ~Buffer() { std::free(data); }
  std::size_t bytes;
  std::byte* data;
  Bytes view() const { return {data, bytes}; }
  MutableBytes room() { return {data, bytes}; }
};

class BareDisk : public testing::Test {
 protected:
  void SetUp() override {
    if (!runtime::is_bare()) GTEST_SKIP() << "not a VM";
    auto opened = blockdev::open("/dev/vda");
    if (opened.failed_with(Code::kNotFound)) GTEST_SKIP() << opened.error().message();
    ASSERT_TRUE(opened) << opened.error().to_string();
    disk = *std::move(opened);
  }
  std::unique_ptr<BlockDevice> disk;
};

TEST_F(BareDisk, TellsTheTruthAboutItself) {
  EXPECT_EQ(disk->info().name, "/dev/vda");
  EXPECT_EQ(disk->info().driver, "virtio-blk");
  EXPECT_TRUE(disk->info().has_flush);
  EXPECT_FALSE(disk->info().has_fua);
  EXPECT_TRUE(disk->info().has_discard);
  EXPECT_TRUE(blockdev::open("/dev/vda").failed_with(Code::kBusy)) << "one owner at a time";
  auto missing = blockdev::open("/dev/vdz");
  ASSERT_TRUE(missing.failed_with(Code::kNotFound));
  EXPECT_NE(missing.error().message().find("/dev/vdb"), std::string::npos) << "says what there is";
  EXPECT_TRUE(blockdev::open("/dev/vdc").failed_with(Code::kInvalidArgument)) << "read-only, opened for writing";
  auto read_only = blockdev::open("/dev/vdc", {.read_only = true});
  ASSERT_TRUE(read_only);
  EXPECT_TRUE((*read_only)->info().read_only);
  EXPECT_EQ((*read_only)->info().block_bytes, 4096u);
  disk.reset();
  EXPECT_TRUE(blockdev::open("/dev/vda")) << "free again after close";
}

TEST_F(BareDisk, BlockingCallsMoveTheBytes) {
  Buffer out(5_MiB, 0x5c), in(5_MiB, 0);
  ASSERT_TRUE(disk->write(1_MiB, out.view()));
  ASSERT_TRUE(disk->flush());
  ASSERT_TRUE(disk->read(1_MiB, in.room()));
  EXPECT_EQ(std::memcmp(in.data, out.data, in.bytes), 0);
  ASSERT_TRUE(disk->write_zeroes(1_MiB, 64_KiB));
  ASSERT_TRUE(disk->read(1_MiB, in.room().first(64_KiB)));
  EXPECT_EQ(in.data[0], std::byte{0});
  ASSERT_TRUE(disk->discard(1_MiB, 64_KiB));
  EXPECT_GE(disk->stats().flushes, 1u);
  EXPECT_GE(disk->stats().write_bytes, 5_MiB);
}

TEST_F(BareDisk, FailuresComeBackAsTheDeviceSaidThem) {
  auto failing = blockdev::open("/dev/vdb");
  ASSERT_TRUE(failing);
  Buffer page(4096, 1);
  EXPECT_TRUE((*failing)->write(0, page.view()));
  Result<> failed = (*failing)->write(1_MiB, page.view());
  ASSERT_TRUE(failed.failed_with(Code::kIo));
  EXPECT_NE(failed.error().message().find("/dev/vdb: write of 4096 bytes at offset 1048576"), std::string::npos)
      << failed.error().message();
  EXPECT_TRUE((*failing)->flush().failed_with(Code::kIo));
  EXPECT_EQ((*failing)->stats().errors, 2u);
}

// Fibers on every core, on a disk with a queue per core and on one that shares a queue.
TEST_F(BareDisk, FibersOfAllCoresShareTheDisks) {
  auto shared = blockdev::open("/dev/vdb");
  ASSERT_TRUE(shared);
  constexpr std::uint64_t kFibers = 8, kRounds = 25;
  std::atomic<int> wrong{0};
  runtime::RuntimeOptions options;
  options.core_count = 2;
  Result<int> ran = runtime::Runtime::run(options, [&](runtime::Runtime& rt) {
    runtime::Completion finished;
    for (std::uint32_t c = 0; c < rt.core_count(); ++c) {
      for (std::uint64_t f = 0; f < kFibers; ++f) {
        finished.add();
        auto work = [&, c, f] {
          BlockDevice& device = f % 2 == 0 ? *disk : **shared;
          Buffer page(8192, 0);
          for (std::uint64_t round = 0; round < kRounds; ++round) {
            std::uint64_t offset = 8_MiB + ((c * kFibers + f) * kRounds + round) * 8192;
            int value = static_cast<int>(c * 100 + f * 10 + round);
            std::memset(page.data, value, page.bytes);
            if (!device.write(offset, page.view())) ++wrong;
            std::memset(page.data, 0, page.bytes);
            if (!device.read(offset, page.room())) ++wrong;
            if (page.data[8191] != static_cast<std::byte>(value)) ++wrong;
          }
          finished.done();
        };
        if (!rt.core(c).spawn_remote(work)) ++wrong;
      }
    }
    finished.wait();
    return 7;
  });
  ASSERT_TRUE(ran) << ran.error().to_string();
  EXPECT_EQ(*ran, 7);
  EXPECT_EQ(wrong.load(), 0);
}

// Figures for the log: `fibers` on one core, each with one request at a time.
void measure(BlockDevice& disk, const char* what, std::uint32_t fibers, bool write_and_flush) {
  constexpr runtime::TimeNs kDurationNs = 200'000'000;
  std::uint64_t count = 0;
  runtime::TimeNs started = 0, ended = 0, busy = 0;
  Result<int> ran = runtime::Runtime::run({}, [&](runtime::Runtime& rt) {
    runtime::Completion finished;
    finished.add(fibers);
    started = runtime::now_ns();
    runtime::TimeNs busy_before = rt.core(0).stats().busy_ns;
    for (std::uint32_t f = 0; f < fibers; ++f) {
      Result<> spawned = rt.core(0).spawn([&, f] {
        Buffer page(4096, 1);
        std::uint64_t seed = f;
        while (runtime::now_ns() - started < kDurationNs) {
          seed = seed * 6364136223846793005u + 1442695040888963407u;
          std::uint64_t offset = (seed >> 33) % 8192 * 4096;
          if (write_and_flush) {
            EXPECT_TRUE(disk.write(offset, page.view()));
            EXPECT_TRUE(disk.flush());
          } else {
            EXPECT_TRUE(disk.read(offset, page.room()));
          }
          ++count;
        }
        finished.done();
      });
      EXPECT_TRUE(spawned);
    }
    finished.wait();
    ended = runtime::now_ns();
    busy = rt.core(0).stats().busy_ns - busy_before;
    return 0;
  });
  ASSERT_TRUE(ran);
  double us = double(ended - started) / 1e3;
  std::printf("%-20s %2u fibers %8.0f /s %8.1f us each, %3.0f%% of the core busy\n", what, fibers, double(count) * 1e6 / us,
              us * fibers / double(count), double(busy) / 10 / us);
}

TEST_F(BareDisk, Speed) {
  for (std::uint32_t fibers : {1, 4, 32}) measure(*disk, "4 KiB random read", fibers, false);
  measure(*disk, "write + flush", 1, true);
}

}  // namespace
}  // namespace kelda::tests
