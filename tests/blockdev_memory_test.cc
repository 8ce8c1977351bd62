// The simulated disk: durable only after a flush, and every fault of a plan takes effect exactly when it should.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "blockdev/memory_sim.h"
#include "blockdev/overlay.h"
#include "runtime/core.h"

namespace kelda::blockdev {
namespace {

// Aligned memory filled with one value.
class Block {
 public:
  explicit Block(int value, std::size_t bytes = 4096) : storage_(bytes + 4096) {
    void* start = storage_.data();
    std::size_t room = storage_.size();
    data_ = {static_cast<std::byte*>(std::align(4096, bytes, start, room)), bytes};
    std::ranges::fill(data_, static_cast<std::byte>(value));
  }
  MutableBytes all() { return data_; }
  bool all_are(int value) const {
    return std::ranges::all_of(data_, [&](std::byte b) { return b == static_cast<std::byte>(value); });
  }

 private:
  std::vector<std::byte> storage_;
  MutableBytes data_;
};

int first_byte(BlockDevice& device, std::uint64_t at) {
  Block block(255);
  EXPECT_TRUE(device.read(at, block.all()));
  EXPECT_TRUE(block.all_are(static_cast<int>(block.all()[0])));
  return static_cast<int>(block.all()[0]);
}

Result<> put(BlockDevice& device, std::uint64_t at, int value, std::size_t bytes = 4096) {
  Block block(value, bytes);
  return device.write(at, block.all());
}

Result<> put_fua(BlockDevice& device, std::uint64_t at, int value) {
  Block block(value);
  return device.write_durable(at, block.all());
}

TEST(MemoryDevice, ReadsBackAndCounts) {
  MemoryDevice disk;
  EXPECT_EQ(first_byte(disk, 8192), 0);
  ASSERT_TRUE(put(disk, 8192, 7, 3_MiB));
  EXPECT_EQ(first_byte(disk, 8192), 7);
  EXPECT_EQ(first_byte(disk, 8192 + 3_MiB), 0);
  EXPECT_EQ(disk.stats().writes, 3u);
  EXPECT_EQ(disk.stats().reads, 3u);
  EXPECT_EQ(disk.op_count(), 6u);
}

TEST(MemoryDevice, OnlyFlushedAndFuaWritesSurvive) {
  MemoryDevice disk;
  ASSERT_TRUE(put(disk, 0, 1));
  ASSERT_TRUE(disk.flush());
  ASSERT_TRUE(put(disk, 0, 2));
  ASSERT_TRUE(put(disk, 4096, 3));
  ASSERT_TRUE(put_fua(disk, 8192, 4));
  auto worst = disk.crash(Survival::kNone);
  EXPECT_EQ(first_byte(*worst, 0), 1);
  EXPECT_EQ(first_byte(*worst, 4096), 0);
  EXPECT_EQ(first_byte(*worst, 8192), 4);
  auto best = disk.crash(Survival::kAll);
  EXPECT_EQ(first_byte(*best, 0), 2);
  EXPECT_EQ(first_byte(*best, 4096), 3);
  EXPECT_TRUE(put(disk, 0, 5).failed_with(Code::kIo));
}

TEST(MemoryDevice, AnOlderUnflushedWriteDoesNotUndoANewerFuaWrite) {
  MemoryDevice disk;
  ASSERT_TRUE(put(disk, 0, 1));
  ASSERT_TRUE(put_fua(disk, 0, 2));
  for (std::uint64_t seed = 0; seed < 20; ++seed) EXPECT_EQ(first_byte(*disk.crash(Survival::kRandom, seed), 0), 2);
}

TEST(MemoryDevice, ARandomCrashLosesKeepsAndTears) {
  MemoryDevice disk;
  ASSERT_TRUE(put(disk, 0, 9));
  int lost = 0, kept = 0, torn = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    Block block(0);
    auto rebooted = disk.crash(Survival::kRandom, seed);
    rebooted->peek(0, block.all());
    for (int sector = 0; sector < 8; ++sector) {  // never torn inside a sector
      const auto part = block.all().subspan(static_cast<std::size_t>(sector) * 512, 512);
      EXPECT_TRUE(std::ranges::all_of(part, [&](std::byte b) { return b == part[0]; }));
    }
    (block.all_are(0) ? lost : block.all_are(9) ? kept : torn)++;
    Block again(0);
    disk.crash(Survival::kRandom, seed)->peek(0, again.all());
    EXPECT_TRUE(std::ranges::equal(block.all(), again.all()));
  }
  EXPECT_GT(lost, 10);
  EXPECT_GT(kept, 10);
  EXPECT_GT(torn, 10);
}

TEST(MemoryDevice, DiesAtTheChosenOperation) {
  for (std::uint64_t n = 0; n < 5; ++n) {
    MemoryDevice disk({}, {.crash_after_ops = n});
    std::uint64_t done = 0;
    while (done < 10 && put(disk, done * 4096, 1) && disk.flush()) ++done;
    EXPECT_EQ(done, n / 2);
    EXPECT_EQ(disk.op_count(), n);
    EXPECT_TRUE(disk.dead());
    auto rebooted = disk.crash(Survival::kNone);
    for (std::uint64_t i = 0; i < 5; ++i) EXPECT_EQ(first_byte(*rebooted, i * 4096), i < done ? 1 : 0);
  }
}

TEST(MemoryDevice, TheWriteThatTheDeathMeetsMayBeTorn) {
  MemoryDevice disk({}, {.crash_after_ops = 0});
  ASSERT_FALSE(put(disk, 0, 6));
  int changed = 0;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Block block(0);
    disk.crash(Survival::kRandom, seed)->peek(0, block.all());
    changed += !block.all_are(0);
  }
  EXPECT_GT(changed, 10);
}

TEST(MemoryDevice, AllThatIsInFlightAtTheDeathMayReachTheMedium) {
  MemoryDevice disk({}, {.crash_after_ops = 1});
  Block blocks[] = {Block(1), Block(2), Block(3)};
  IoSegment segments[3];
  Request requests[3];
  Request* pointers[3];
  runtime::Completion completion;
  completion.add(3);
  for (std::size_t i = 0; i < 3; ++i) {
    segments[i] = {blocks[i].all().data(), 4096};
    requests[i].op = Op::kWrite;
    requests[i].offset_bytes = i * 4096;
    requests[i].segments = {&segments[i], 1};
    requests[i].completion = &completion;
    pointers[i] = &requests[i];
  }
  disk.submit(pointers);
  completion.wait();
  EXPECT_TRUE(requests[0].status);
  EXPECT_TRUE(requests[1].status.failed_with(Code::kIo));
  EXPECT_TRUE(requests[2].status.failed_with(Code::kIo));
  EXPECT_FALSE(put(disk, 16384, 4));  // asked for when the device was gone: can never have happened
  const auto undecided = disk.cut_power();
  ASSERT_EQ(undecided.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(undecided[i].offset_bytes, i * 4096);
  const Survived last_only[] = {{}, {}, {0, 4096}};
  auto rebooted = disk.crash(last_only);
  EXPECT_EQ(first_byte(*rebooted, 0), 0);
  EXPECT_EQ(first_byte(*rebooted, 4096), 0);
  EXPECT_EQ(first_byte(*rebooted, 8192), 3);
}

TEST(MemoryDevice, EachSubsetOfUnflushedWritesCanBeChosen) {
  MemoryDevice disk;
  ASSERT_TRUE(put(disk, 0, 1));
  ASSERT_TRUE(disk.flush());
  ASSERT_TRUE(put(disk, 0, 2));
  ASSERT_TRUE(put_fua(disk, 4096, 3));
  ASSERT_TRUE(put(disk, 8192, 4));
  ASSERT_TRUE(disk.write_zeroes(0, 4096));
  const auto undecided = disk.cut_power();
  ASSERT_EQ(undecided.size(), 3u);  // what is flushed or was written with fua is settled
  std::vector<std::uint64_t> seen;
  for (unsigned mask = 0; mask < 8; ++mask) {
    std::vector<Survived> survived;
    for (unsigned i = 0; i < 3; ++i) survived.push_back({0, (mask >> i & 1) != 0 ? undecided[i].length_bytes : 0});
    auto rebooted = disk.crash(survived);
    EXPECT_EQ(first_byte(*rebooted, 0), (mask & 4) != 0 ? 0 : (mask & 1) != 0 ? 2 : 1);
    EXPECT_EQ(first_byte(*rebooted, 4096), 3);
    EXPECT_EQ(first_byte(*rebooted, 8192), (mask & 2) != 0 ? 4 : 0);
    seen.push_back(rebooted->fingerprint());
  }
  std::ranges::sort(seen);
  EXPECT_EQ(std::unique(seen.begin(), seen.end()) - seen.begin(), 6);  // the zeroes hide the write below them
}

TEST(MemoryDevice, AWriteTearsWhereOneChooses) {
  MemoryDevice disk;
  ASSERT_TRUE(put(disk, 0, 1));
  ASSERT_EQ(disk.cut_power().size(), 1u);
  const Survived middle[] = {{512, 1024}};
  auto rebooted = disk.crash(middle);
  Block block(255);
  ASSERT_TRUE(rebooted->read(0, block.all()));
  for (std::size_t i = 0; i < 4096; ++i) EXPECT_EQ(block.all()[i], std::byte{i >= 512 && i < 1024}) << i;
}

TEST(MemoryDevice, ErrorsAtTheNthMatchingOperation) {
  MemoryDevice disk({}, {.rules = {{.fault = Fault::kError, .op = Op::kWrite, .from_bytes = 4096, .to_bytes = 8192,
                                    .skip = 1, .count = 2}}});
  EXPECT_TRUE(put(disk, 0, 1));
  EXPECT_TRUE(put(disk, 4096, 1));
  const Result<> failed = put(disk, 4096, 2);
  ASSERT_TRUE(failed.failed_with(Code::kIo));
  EXPECT_NE(failed.error().message().find("write of 4096 bytes at 4096"), std::string::npos);
  EXPECT_TRUE(put(disk, 8192, 2));
  EXPECT_TRUE(put(disk, 0, 2, 8192).failed_with(Code::kIo));
  EXPECT_TRUE(put(disk, 4096, 3));
  EXPECT_EQ(disk.faults_hit(), 2u);
  EXPECT_EQ(disk.stats().errors, 2u);
}

TEST(MemoryDevice, AFlushThatFailsKeepsNothingAndOneThatLiesSaysOk) {
  MemoryDevice disk({}, {.rules = {{.fault = Fault::kError, .op = Op::kFlush}, {.fault = Fault::kPhantom, .op = Op::kFlush}}});
  ASSERT_TRUE(put(disk, 0, 1));
  EXPECT_TRUE(disk.flush().failed_with(Code::kIo));
  EXPECT_TRUE(disk.flush());
  EXPECT_EQ(first_byte(*disk.crash(Survival::kNone), 0), 0);
}

TEST(MemoryDevice, BitRotFlipsOneStoredBit) {
  MemoryDevice disk({}, {.rules = {{.fault = Fault::kBitRot, .op = Op::kRead}}});
  ASSERT_TRUE(put(disk, 0, 0, 8192));
  ASSERT_TRUE(disk.flush());
  for (int i = 0; i < 2; ++i) {  // the second read finds the same damage
    Block block(0, 8192);
    ASSERT_TRUE(disk.read(0, block.all()));
    int bits = 0;
    for (std::byte b : block.all()) bits += __builtin_popcount(static_cast<unsigned>(b));
    EXPECT_EQ(bits, 1);
  }
  Block block(0, 8192);
  ASSERT_TRUE(disk.crash(Survival::kNone)->read(0, block.all()));
  EXPECT_FALSE(block.all_are(0));
}

TEST(MemoryDevice, MisdirectedAndPhantomWritesReportSuccess) {
  MemoryDevice disk({.size_bytes = 64_KiB}, {.rules = {{.fault = Fault::kMisdirect, .op = Op::kWrite},
                                                       {.fault = Fault::kPhantom, .op = Op::kWrite}}});
  ASSERT_TRUE(put(disk, 4096, 5));
  EXPECT_EQ(disk.faults_hit(), 1u);
  Block all(0, 64_KiB);
  disk.peek(0, all.all());
  EXPECT_EQ(std::ranges::count(all.all(), std::byte{5}), 4096);
  EXPECT_FALSE(std::ranges::all_of(all.all().subspan(4096, 4096), [](std::byte b) { return b == std::byte{5}; }));
  ASSERT_TRUE(put(disk, 4096, 6));
  disk.peek(0, all.all());
  EXPECT_EQ(std::ranges::count(all.all(), std::byte{6}), 0);
}

TEST(MemoryDevice, ABadSectorCannotBeReadUntilItIsWritten) {
  MemoryDevice disk({}, {.rules = {{.fault = Fault::kBadSector, .op = Op::kWrite, .from_bytes = 4096, .to_bytes = 8192}}});
  ASSERT_TRUE(put(disk, 0, 1));
  EXPECT_TRUE(put(disk, 4096, 1));  // reported as done
  ASSERT_TRUE(disk.flush());
  EXPECT_EQ(first_byte(disk, 0), 1);
  Block block(0);
  EXPECT_TRUE(disk.read(4096, block.all()).failed_with(Code::kIo));
  auto rebooted = disk.crash(Survival::kAll);
  EXPECT_TRUE(rebooted->read(4096, block.all()).failed_with(Code::kIo));
  EXPECT_TRUE(put(*rebooted, 4096, 2));
  EXPECT_EQ(first_byte(*rebooted, 4096), 2);
  rebooted->make_unreadable(4096 + 512);
  EXPECT_TRUE(rebooted->read(4096, block.all()).failed_with(Code::kIo));
  EXPECT_EQ(first_byte(*rebooted, 8192), 0);
}

TEST(MemoryDevice, SlowOperationsAreDoneLater) {
  MemoryDevice disk({}, {.rules = {{.fault = Fault::kSlow, .op = Op::kWrite, .delay_ns = 20'000'000}}});
  const runtime::TimeNs before = runtime::now_ns();
  ASSERT_TRUE(put(disk, 0, 1));
  EXPECT_GE(runtime::now_ns() - before, 20'000'000u);
  EXPECT_EQ(first_byte(disk, 0), 1);
}

// Submits a write that is stuck, and then lets `release` end it.
Result<> stuck_write(MemoryDevice& disk, std::function<void()> release) {
  Block block(7);
  const IoSegment segment{block.all().data(), 4096};
  runtime::Completion completion;
  Request request;
  request.op = Op::kWrite;
  request.segments = {&segment, 1};
  request.completion = &completion;
  Request* const batch[] = {&request};
  completion.add();
  disk.submit(batch);
  EXPECT_TRUE(put(disk, 8192, 1));  // others go on
  runtime::Core::current().sleep_until(runtime::now_ns() + 30'000'000);
  EXPECT_TRUE(completion.pending());
  release();
  completion.wait();
  return std::move(request.status);
}

TEST(MemoryDevice, AStuckOperationEndsWithAnotherPlanOrAPowerCut) {
  const FaultPlan stuck{.rules = {{.fault = Fault::kStuck, .op = Op::kWrite, .to_bytes = 4096}}};
  MemoryDevice disk({}, stuck);
  EXPECT_TRUE(stuck_write(disk, [&] { disk.set_plan({}); }));
  EXPECT_EQ(first_byte(disk, 0), 7);
  disk.set_plan(stuck);
  EXPECT_TRUE(stuck_write(disk, [&] { (void)disk.crash(Survival::kNone); }).failed_with(Code::kIo));
}

TEST(MemoryDevice, WholeWritesSurviveOutOfOrder) {
  bool later_alone = false;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    MemoryDevice disk;
    ASSERT_TRUE(put(disk, 0, 1, 8192));
    ASSERT_TRUE(put(disk, 8192, 2, 8192));
    auto rebooted = disk.snapshot(Survival::kWhole, seed);
    Block first(9, 8192), second(9, 8192);
    ASSERT_TRUE(rebooted->read(0, first.all()));
    ASSERT_TRUE(rebooted->read(8192, second.all()));
    EXPECT_TRUE(first.all_are(0) || first.all_are(1));
    EXPECT_TRUE(second.all_are(0) || second.all_are(2));
    later_alone |= first.all_are(0) && second.all_are(2);
    EXPECT_FALSE(disk.dead());
  }
  EXPECT_TRUE(later_alone);
}

TEST(MemoryDevice, GrowsBetweenRuns) {
  MemoryDevice disk({.size_bytes = 64_KiB});
  ASSERT_TRUE(put(disk, 0, 1));
  disk.grow(128_KiB);
  EXPECT_EQ(disk.info().size_bytes, 128_KiB);
  EXPECT_TRUE(put(disk, 124_KiB, 2));
  EXPECT_EQ(first_byte(disk, 0), 1);
}

TEST(MemoryDevice, FillsUpAndDiscardGivesBack) {
  MemoryDevice disk({}, {.capacity_bytes = 8192});
  EXPECT_TRUE(put(disk, 0, 1));
  EXPECT_TRUE(put(disk, 8192, 1));
  EXPECT_TRUE(put(disk, 16384, 1).failed_with(Code::kNoSpace));
  EXPECT_TRUE(put(disk, 0, 2));
  EXPECT_EQ(first_byte(disk, 16384), 0);
  EXPECT_TRUE(disk.discard(0, 4096));
  EXPECT_TRUE(put(disk, 16384, 1));
}

TEST(MemoryDevice, DelaysReorder) {
  MemoryDevice disk({}, {.delay_min_ns = 1000, .delay_max_ns = 300'000});
  std::vector<Request> requests(32);
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<IoSegment> segments(32);
  std::vector<Request*> batch;
  runtime::Completion completion;
  for (int i = 0; i < 32; ++i) {
    auto& request = requests[static_cast<std::size_t>(i)];
    blocks.push_back(std::make_unique<Block>(i));
    segments[static_cast<std::size_t>(i)] = {blocks.back()->all().data(), 4096};
    request.op = Op::kWrite;
    request.segments = {&segments[static_cast<std::size_t>(i)], 1};
    request.completion = &completion;
    batch.push_back(&request);
  }
  completion.add(32);
  disk.submit(batch);
  completion.wait();
  EXPECT_NE(first_byte(disk, 0), 31);  // by the plan's seed: the last submitted is not the last carried out
}

TEST(MemoryDevice, WithoutFlushOrDiscardItSaysSo) {
  MemoryDevice disk({.has_flush = false, .has_discard = false, .has_write_zeroes = false});
  EXPECT_TRUE(disk.flush().failed_with(Code::kUnsupported));
  EXPECT_TRUE(disk.discard(0, 4096).failed_with(Code::kUnsupported));
  ASSERT_TRUE(put(disk, 4096, 1));
  EXPECT_TRUE(disk.write_zeroes(0, 2_MiB));  // written by the helper
  EXPECT_EQ(first_byte(disk, 4096), 0);
  disk.set_plan({.rules = {{.fault = Fault::kNoSpace, .op = Op::kWrite, .skip = 1}}});
  EXPECT_TRUE(disk.write_zeroes(0, 2_MiB).failed_with(Code::kNoSpace));
  Block block(0);
  EXPECT_TRUE(disk.register_buffers(block.all()).failed_with(Code::kUnsupported));
}

// A write that is to rot, or to leave a bad sector, and finds no room: it is refused like any other.
TEST(MemoryDevice, AFullDiskRefusesWhatWasToBeDamaged) {
  for (const Fault fault : {Fault::kBitRot, Fault::kBadSector}) {
    MemoryDevice disk({}, {.rules = {{.fault = fault, .op = Op::kWrite}}, .capacity_bytes = 0});
    EXPECT_TRUE(put(disk, 0, 1).failed_with(Code::kNoSpace));
    EXPECT_EQ(first_byte(disk, 0), 0);
  }
}

// What it has is served from memory; the disk below is needed for the rest, also of a block that is written in part.
TEST(OverlayDevice, PassesOnThatTheDiskBelowCannotBeRead) {
  auto owned = std::make_unique<MemoryDevice>();
  MemoryDevice& below = *owned;
  ASSERT_TRUE(put(below, 0, 1, 16_KiB));
  OverlayDevice overlay(std::move(owned));
  ASSERT_TRUE(put(overlay, 4096, 2));
  below.set_plan({.rules = {{.fault = Fault::kError, .op = Op::kRead, .count = FaultRule::kAlways}}});
  Block block(0);
  EXPECT_TRUE(overlay.read(0, block.all()).failed_with(Code::kIo));
  EXPECT_TRUE(put(overlay, 8192, 3, 512).failed_with(Code::kIo));
  EXPECT_TRUE(overlay.write_zeroes(512, 4096).failed_with(Code::kIo));
  EXPECT_TRUE(put(overlay, 8192, 3)) << "a whole block needs nothing from below";
  below.set_plan({});
  EXPECT_EQ(first_byte(overlay, 0), 1);
  EXPECT_EQ(first_byte(overlay, 4096), 2);
  EXPECT_EQ(first_byte(overlay, 8192), 3);
  EXPECT_EQ(first_byte(below, 8192), 1);
  ASSERT_TRUE(put(overlay, 12288, 5, 512));
  ASSERT_TRUE(overlay.write_zeroes(12288 + 1024, 512));
  ASSERT_TRUE(overlay.read(12288, block.all()));
  for (std::size_t i = 0; i < 4096; ++i) {
    ASSERT_EQ(std::to_integer<int>(block.all()[i]), i < 512 ? 5 : i >= 1024 && i < 1536 ? 0 : 1) << i;
  }
}

}  // namespace
}  // namespace kelda::blockdev
