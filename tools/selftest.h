// `kelda selftest`: what a disk does with what it is told, on a scratch disk, before anything is trusted to it.
//
// Contract
//  - Destroys what the tested part of the disk holds, and leaves zeroes there. Whoever calls asks for permission first.
//  - Every block written carries a stamp: its place, a number, the seed and a checksum. So a block that is read says
//    whether it is the newest one, an older one (lost write), one that belongs elsewhere (misdirected), or damaged.
//  - Only what was observed is said. What a cache hides is not observed: the two-phase test (selftest_order.h) with a real
//    power cut is the only one here that a lying cache cannot pass.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "blockdev/blockdev.h"
#include "common/function_ref.h"
#include "tools/histogram.h"

namespace kelda::tools {

enum class Level : std::uint8_t { kGood, kSuspicious, kBad };

struct SelftestFinding {
  Level level;
  std::string text;
};

struct SelftestTiming {
  std::string name;  // "write_4k"
  Histogram latency;
  double bytes_per_s = 0;  // 0: not a rate
};

struct SelftestCounts {
  std::uint64_t blocks_written = 0, blocks_read = 0;
  std::uint64_t lost = 0, misdirected = 0, damaged = 0, unreadable = 0;
  std::string first_problem;
};

struct TornSize {
  std::uint64_t bytes = 0, reads = 0, torn = 0;
};

enum class AfterDiscard : std::uint8_t { kNotOffered, kZeroes, kOldData, kOther };

struct SelftestReport {
  std::uint64_t seed = 0;
  std::uint64_t tested_bytes = 0;
  SelftestCounts counts;
  std::vector<SelftestTiming> timings;
  std::vector<TornSize> torn;
  AfterDiscard after_discard = AfterDiscard::kNotOffered;
  bool zeroes_work = true;
  std::vector<SelftestFinding> findings;

  void add(Level level, std::string text) { findings.push_back({level, std::move(text)}); }
  Level worst() const {
    Level worst = Level::kGood;
    for (const SelftestFinding& finding : findings) worst = std::max(worst, finding.level);
    return worst;
  }
};

struct SelftestPlan {
  std::uint64_t seed = 1;
  double seconds = 60;
  std::uint64_t tested_bytes = 0;  // from the start of the device; a multiple of 1 MiB
};

// Bytes that a test of this device uses.
std::uint64_t selftest_bytes(const blockdev::DeviceInfo& info);

using SelftestProgress = FunctionRef<void(std::uint64_t, std::uint64_t)>;  // milliseconds done, of all

// All tests of one process: integrity, torn writes, timings, discard. An error: the device failed altogether.
Result<SelftestReport> run_selftest(blockdev::BlockDevice& device, const SelftestPlan& plan, SelftestProgress progress);

// Its parts; each adds its findings.
Result<> test_integrity(blockdev::BlockDevice& device, const SelftestPlan& plan, double seconds, SelftestReport& report);
Result<> test_torn_writes(blockdev::BlockDevice& device, const SelftestPlan& plan, double seconds, SelftestReport& report);
Result<> test_timing(blockdev::BlockDevice& device, const SelftestPlan& plan, double seconds, SelftestReport& report);
Result<> test_discard(blockdev::BlockDevice& device, const SelftestPlan& plan, SelftestReport& report);

}  // namespace kelda::tools
