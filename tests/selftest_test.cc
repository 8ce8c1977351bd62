// The self-test against disks that are known to be good or bad: it must notice what it says that it notices, and must not
// accuse a good one. In virtual time.
#include <gtest/gtest.h>

#include <functional>

#include "blockdev/memory_sim.h"
#include "common/prng.h"
#include "disk/aligned_buffer.h"
#include "runtime/core_sim.h"
#include "support/rounds.h"
#include "tools/selftest.h"
#include "tools/selftest_order.h"

namespace kelda::tools {
namespace {

using blockdev::Fault;
using blockdev::FaultPlan;
using blockdev::FaultRule;
using blockdev::MemoryDevice;
using blockdev::Op;
using blockdev::Survival;

constexpr std::uint64_t kDiskBytes = 20_MiB;  // what is not flushed is kept beside it: the VM has little memory
constexpr auto kNoProgress = [](std::uint64_t, std::uint64_t) {};

void simulate(std::uint64_t seed, std::move_only_function<void()> body) {
  const auto code = runtime::run_simulated({.seed = seed, .core_count = 1}, [&](runtime::Runtime&) {
    body();
    return 0;
  });
  ASSERT_TRUE(code.has_value()) << code.error().to_string();
}

FaultPlan slow(std::vector<FaultRule> rules = {}) { return {.delay_min_ns = 40'000, .delay_max_ns = 200'000, .rules = std::move(rules)}; }

Result<SelftestReport> test(blockdev::BlockDevice& device, double seconds = 1) {
  return run_selftest(device, {.seed = 7, .seconds = seconds, .tested_bytes = selftest_bytes(device.info())}, kNoProgress);
}

std::string text_of(const SelftestReport& report) {
  std::string text;
  for (const auto& finding : report.findings) text += finding.text + "\n";
  return text;
}

TEST(Selftest, AGoodDisk) {
  simulate(1, [] {
    MemoryDevice disk({.size_bytes = kDiskBytes}, slow());
    const auto report = test(disk);
    ASSERT_TRUE(report.has_value()) << report.error().to_string();
    EXPECT_EQ(report->worst(), Level::kGood) << text_of(*report);
    EXPECT_GT(report->counts.blocks_written, 5'000u);
    EXPECT_GT(report->counts.blocks_read, 10'000u);
    EXPECT_EQ(report->after_discard, AfterDiscard::kZeroes);
    for (const auto& timing : report->timings) {
      EXPECT_GT(timing.latency.total(), 5u) << timing.name;
      EXPECT_GE(timing.latency.quantile_ns(0.5), 35'000u) << timing.name;
    }
    EXPECT_EQ(report->timings.size(), 8u);
  });
}

// Each fault, once in thousands of operations.
TEST(Selftest, WritesThatAreLostMisdirectedOrDamaged) {
  struct Case {
    Fault fault;
    std::uint64_t SelftestCounts::*count;
  };
  for (const Case c : {Case{Fault::kPhantom, &SelftestCounts::lost}, Case{Fault::kMisdirect, &SelftestCounts::lost}, Case{Fault::kMisdirect, &SelftestCounts::misdirected},
                       Case{Fault::kBitRot, &SelftestCounts::damaged}}) {
    simulate(2, [c] {
      MemoryDevice disk({.size_bytes = kDiskBytes}, slow());
      SelftestReport report;
      const SelftestPlan plan{.seed = 3, .seconds = 2, .tested_bytes = kDiskBytes};
      disk.set_plan(slow({{.fault = c.fault, .op = Op::kWrite, .skip = 20, .count = 20}}));
      ASSERT_TRUE(test_integrity(disk, plan, 0.02, report).has_value());
      ASSERT_GT(disk.faults_hit(), 5u);
      EXPECT_GT(report.counts.*c.count, 0u) << text_of(report);
      EXPECT_EQ(report.worst(), Level::kBad);
      EXPECT_FALSE(report.counts.first_problem.empty());
    });
  }
}

TEST(Selftest, ReadsThatFail) {
  simulate(3, [] {
    MemoryDevice disk({.size_bytes = kDiskBytes}, slow());
    SelftestReport report;
    disk.set_plan(slow({{.fault = Fault::kError, .op = Op::kRead, .from_bytes = 9_MiB, .to_bytes = 9_MiB + 512, .count = FaultRule::kAlways}}));
    ASSERT_TRUE(test_integrity(disk, {.seed = 3, .tested_bytes = kDiskBytes}, 0.01, report).has_value());
    EXPECT_GT(report.counts.unreadable, 0u);
    EXPECT_EQ(report.worst(), Level::kBad);
  });
}

TEST(Selftest, AFlushThatTakesNoTimeIsSuspicious) {
  simulate(4, [] {
    MemoryDevice disk({.size_bytes = kDiskBytes}, {.delay_min_ns = 1'000, .delay_max_ns = 3'000});
    SelftestReport report;
    ASSERT_TRUE(test_timing(disk, {.seed = 1, .tested_bytes = kDiskBytes}, 0.002, report).has_value());
    EXPECT_EQ(report.worst(), Level::kSuspicious) << text_of(report);
    EXPECT_NE(text_of(report).find("too short to reach a medium"), std::string::npos);
  });
}

TEST(Selftest, ADiskWithoutFlushIsNotFit) {
  simulate(5, [] {
    MemoryDevice disk({.size_bytes = kDiskBytes, .has_flush = false, .has_fua = false}, slow());
    const auto report = test(disk, 0.05);
    ASSERT_TRUE(report.has_value());
    EXPECT_EQ(report->worst(), Level::kBad);
    EXPECT_NE(text_of(*report).find("offers no flush"), std::string::npos);
  });
}

TEST(Selftest, WhatADiscardLeaves) {
  simulate(6, [] {
    MemoryDevice disk({.size_bytes = kDiskBytes}, slow({{.fault = Fault::kPhantom, .op = Op::kDiscard, .count = FaultRule::kAlways},
                                                        {.fault = Fault::kPhantom, .op = Op::kWriteZeroes, .count = FaultRule::kAlways}}));
    SelftestReport report;
    ASSERT_TRUE(test_discard(disk, {.seed = 1, .tested_bytes = kDiskBytes}, report).has_value());
    EXPECT_EQ(report.after_discard, AfterDiscard::kOldData);
    EXPECT_FALSE(report.zeroes_work);
    EXPECT_EQ(report.worst(), Level::kBad);
  });
}

// Carries out each write in pieces, with time between them.
class TearingDevice final : public blockdev::BlockDevice {
 public:
  TearingDevice(MemoryDevice& disk, std::uint64_t piece_bytes) : disk_(disk), piece_bytes_(piece_bytes) {}
  const blockdev::DeviceInfo& info() const override { return disk_.info(); }
  blockdev::DeviceStats stats() const override { return disk_.stats(); }
  void submit(std::span<blockdev::Request* const> requests) override {
    for (blockdev::Request* request : requests) {
      if (request->op != Op::kWrite) {
        disk_.submit({&request, 1});
        continue;
      }
      ASSERT_TRUE(runtime::Core::current().spawn([this, request] {
        std::uint64_t at = request->offset_bytes;
        for (const auto& segment : request->segments) {
          for (std::size_t done = 0; done < segment.bytes; done += piece_bytes_) {
            const std::size_t part = std::min<std::size_t>(piece_bytes_, segment.bytes - done);
            EXPECT_TRUE(disk_.write(at + done, {segment.data + done, part}).has_value());
          }
          at += segment.bytes;
        }
        request->completion->done();
      }));
    }
  }

 private:
  MemoryDevice& disk_;
  const std::uint64_t piece_bytes_;
};

TEST(Selftest, TornWritesAreSeenFromTheSizeOnThatTears) {
  for (const std::uint64_t piece : {512u, 4096u, 65'536u}) {
    simulate(piece, [piece] {
      MemoryDevice disk({.size_bytes = kDiskBytes}, {.delay_min_ns = 10'000, .delay_max_ns = 30'000});
      TearingDevice tearing(disk, piece);
      SelftestReport report;
      ASSERT_TRUE(test_torn_writes(tearing, {.seed = 1, .tested_bytes = kDiskBytes}, 0.05, report).has_value());
      for (const TornSize& size : report.torn) {
        EXPECT_GT(size.reads, 50u);
        EXPECT_EQ(size.torn > 0, size.bytes > piece) << size.bytes;
      }
      EXPECT_NE(text_of(report).find("writes up to " + std::to_string(piece) + " bytes"), std::string::npos) << text_of(report);
    });
  }
}

// A power cut in the midst of numbered writes.
Result<OrderVerdict> cut(std::uint64_t seed, std::uint64_t ops, Survival survival, std::vector<FaultRule> rules, std::uint64_t& acknowledged) {
  FaultPlan plan = slow(std::move(rules));
  plan.seed = seed;
  plan.crash_after_ops = ops;
  MemoryDevice disk({.size_bytes = kDiskBytes, .has_fua = seed % 2 == 0}, plan);
  acknowledged = 0;
  const auto written = write_numbers(disk, seed, [] { return false; }, [&](std::uint64_t number) { acknowledged = number; });
  EXPECT_FALSE(written.has_value());
  const auto rebooted = disk.crash(survival, seed);
  return verify_numbers(*rebooted, acknowledged);
}

TEST(SelftestOrder, AnHonestDiskIsNeverAccused) {
  std::uint64_t torn = 0, checked = 0, whole = 0;
  const std::uint64_t rounds = test_rounds(60);
  for (std::uint64_t seed = 1; seed <= rounds; ++seed) {
    simulate(seed, [&] {
      std::uint64_t acknowledged;
      const Survival survival[] = {Survival::kNone, Survival::kAll, Survival::kRandom};
      const auto verdict = cut(seed, 20 + Prng(seed).below(3000), survival[seed % 3], {}, acknowledged);
      ASSERT_TRUE(verdict.has_value()) << verdict.error().to_string();
      EXPECT_EQ(verdict->lost, 0u) << "seed " << seed << ": " << verdict->first_problem;
      EXPECT_EQ(verdict->misdirected, 0u);
      EXPECT_GT(verdict->durable_below, acknowledged);
      checked += verdict->checked;
      torn += verdict->unflushed_torn;
      whole += verdict->unflushed_whole;
    });
  }
  EXPECT_GT(checked, rounds * 5'000 / 60);
  EXPECT_GT(torn, rounds / 6) << "no cut met a write";
  EXPECT_GT(whole, rounds / 6);
}

TEST(SelftestOrder, AFlushThatIsALieIsCaughtByAPowerCut) {
  for (std::uint64_t seed = 1; seed <= 20; seed += 2) {  // odd: no FUA, so that every batch needs its flush
    simulate(seed, [&] {
      std::uint64_t acknowledged;
      const auto verdict = cut(seed, 400, seed % 4 == 1 ? Survival::kNone : Survival::kRandom,
                               {{.fault = Fault::kPhantom, .op = Op::kFlush, .skip = 10, .count = FaultRule::kAlways}}, acknowledged);
      ASSERT_TRUE(verdict.has_value()) << verdict.error().to_string();
      EXPECT_GT(acknowledged, 100u);
      EXPECT_GT(verdict->lost, 0u);
      EXPECT_NE(verdict->first_problem.find("was durable before"), std::string::npos);
    });
  }
}

// Nobody noted a number: what was written later convicts the disk all the same.
TEST(SelftestOrder, ALostWriteIsSeenWithoutANote) {
  simulate(9, [] {
    MemoryDevice disk({.size_bytes = kDiskBytes}, slow({{.fault = Fault::kPhantom, .op = Op::kWrite, .skip = 30}}));
    std::uint64_t acknowledged = 0;
    ASSERT_TRUE(write_numbers(disk, 9, [&] { return acknowledged > 300; }, [&](std::uint64_t number) { acknowledged = number; }).has_value());
    ASSERT_EQ(disk.faults_hit(), 1u);
    const auto verdict = verify_numbers(disk, 0);
    ASSERT_TRUE(verdict.has_value());
    EXPECT_EQ(verdict->lost, 1u);
    disk::AlignedBuffer zeroes(1_MiB);
    ASSERT_TRUE(disk.write(0, zeroes.span()).has_value());
    EXPECT_TRUE(verify_numbers(disk, 0).failed_with(Code::kNotFound));
  });
}

TEST(SelftestOrder, AMisdirectedWrite) {
  simulate(11, [] {
    MemoryDevice disk({.size_bytes = 18_MiB}, slow({{.fault = Fault::kMisdirect, .op = Op::kWrite, .skip = 30, .count = 3}}));
    std::uint64_t acknowledged = 0;
    ASSERT_TRUE(write_numbers(disk, 9, [&] { return acknowledged > 200; }, [&](std::uint64_t number) { acknowledged = number; }).has_value());
    const auto verdict = verify_numbers(disk, acknowledged);
    ASSERT_TRUE(verdict.has_value());
    EXPECT_GT(verdict->misdirected + verdict->lost, 0u);
  });
}

}  // namespace
}  // namespace kelda::tools
