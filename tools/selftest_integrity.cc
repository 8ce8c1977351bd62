// Does the disk keep what it is given, where it was given, and the newest of it? And what is left after a discard.
#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "disk/aligned_buffer.h"
#include "disk/page_check.h"
#include "runtime/core.h"
#include "tools/selftest.h"
#include "tools/selftest_blocks.h"

namespace kelda::tools {

namespace {

constexpr std::uint64_t kLanes = 4;  // writers at once, each in its own part
constexpr std::uint64_t kMostBlocks = 64;
constexpr std::uint64_t kReadBytes = 256_KiB;

class Integrity {
 public:
  Integrity(blockdev::BlockDevice& device, const SelftestPlan& plan, SelftestCounts& counts)
      : device_(device), plan_(plan), counts_(counts), block_bytes_(device.info().block_bytes),
        numbers_(plan.tested_bytes / block_bytes_) {}

  // Random writes, some flushes, some reads, until the deadline.
  Result<> lane(std::uint64_t lane, runtime::TimeNs deadline_ns) {
    Prng prng(plan_.seed * kLanes + lane);
    const std::uint64_t blocks = numbers_.size() / kLanes, first = lane * blocks;
    disk::AlignedBuffer buffer(kMostBlocks * block_bytes_);
    for (std::uint64_t number = 1; runtime::now_ns() < deadline_ns; ++number) {
      const std::uint64_t count = std::min(prng.between(1, kMostBlocks), blocks);
      const std::uint64_t at = first + prng.below(blocks - count + 1);
      const MutableBytes data = buffer.span().first(count * block_bytes_);
      fill_blocks(data, block_bytes_, {.seed = plan_.seed, .offset = at * block_bytes_, .number = number});
      TRY(device_.write(at * block_bytes_, data));
      std::fill_n(numbers_.begin() + static_cast<std::ptrdiff_t>(at), count, number);
      counts_.blocks_written += count;
      if (prng.one_in(16) && device_.info().has_flush) TRY(device_.flush());
      if (prng.one_in(4)) {
        const std::uint64_t from = first + prng.below(blocks - count + 1);
        read(from, data);
      }
    }
    return {};
  }

  void read_all() {
    disk::AlignedBuffer buffer(kReadBytes);
    for (std::uint64_t at = 0; at < numbers_.size(); at += kReadBytes / block_bytes_) {
      read(at, buffer.span().first(std::min<std::uint64_t>(kReadBytes, (numbers_.size() - at) * block_bytes_)));
    }
  }

 private:
  void read(std::uint64_t first, MutableBytes data) {
    if (const Result<> done = device_.read(first * block_bytes_, data); !done) {
      ++counts_.unreadable;
      return problem(done.error().message());
    }
    for (std::uint64_t i = 0; i < data.size() / block_bytes_; ++i) judge(first + i, data.subspan(i * block_bytes_, block_bytes_));
  }

  void judge(std::uint64_t block, Bytes data) {
    ++counts_.blocks_read;
    const std::uint64_t offset = block * block_bytes_, expected = numbers_[block];
    const auto stamp = read_stamp(data);
    const bool ours = stamp && stamp->seed == plan_.seed;
    if (ours && stamp->offset != offset) {
      ++counts_.misdirected;
      return problem(fmt::format("at byte {}: what was written to byte {}", offset, stamp->offset));
    }
    if (expected == 0 || (ours && stamp->number == expected)) return;
    if (ours || disk::all_zero(data) || stamp) {
      ++counts_.lost;
      return problem(fmt::format("at byte {}: {} instead of write {}", offset, ours ? fmt::format("write {}", stamp->number) : "what was there before", expected));
    }
    ++counts_.damaged;
    problem(fmt::format("at byte {}: content that was never written", offset));
  }

  void problem(std::string text) {
    if (counts_.first_problem.empty()) counts_.first_problem = std::move(text);
  }

  blockdev::BlockDevice& device_;
  const SelftestPlan& plan_;
  SelftestCounts& counts_;
  const std::size_t block_bytes_;
  std::vector<std::uint64_t> numbers_;  // of the newest write of each block
};

}  // namespace

Result<> test_integrity(blockdev::BlockDevice& device, const SelftestPlan& plan, double seconds, SelftestReport& report) {
  Integrity integrity(device, plan, report.counts);
  const auto deadline_ns = runtime::now_ns() + static_cast<runtime::TimeNs>(seconds * 1e9);
  runtime::Completion lanes;
  std::vector<Result<>> outcomes(kLanes);
  for (std::uint64_t i = 0; i < kLanes; ++i) {
    auto spawned = runtime::spawn_counted(
        runtime::Core::current(), lanes, [&, i] { outcomes[i] = integrity.lane(i, deadline_ns); });
    if (!spawned) outcomes[i] = std::move(spawned);
  }
  lanes.wait();
  for (Result<>& outcome : outcomes) TRY(std::move(outcome));
  if (device.info().has_flush) TRY(device.flush());
  integrity.read_all();
  const SelftestCounts& c = report.counts;
  if (c.lost + c.misdirected + c.damaged + c.unreadable == 0) {
    report.add(Level::kGood, fmt::format("{} blocks written and {} read: all were the newest, whole and in their place", c.blocks_written, c.blocks_read));
  } else {
    report.add(Level::kBad, fmt::format("the disk does not keep data: {} lost, {} misdirected, {} damaged blocks, {} reads failed; the first: {}",
                                        c.lost, c.misdirected, c.damaged, c.unreadable, c.first_problem));
  }
  return {};
}

Result<> test_discard(blockdev::BlockDevice& device, const SelftestPlan& plan, SelftestReport& report) {
  const std::size_t block_bytes = device.info().block_bytes;
  disk::AlignedBuffer buffer(1_MiB);
  const auto write_pattern = [&]() -> Result<> {
    fill_blocks(buffer.span(), block_bytes, {.seed = plan.seed, .offset = 0, .number = ~std::uint64_t{0}});
    TRY(device.write(0, buffer.span()));
    return device.info().has_flush ? device.flush() : Result<>();
  };
  if (device.info().has_write_zeroes) {
    TRY(write_pattern());
    TRY(device.write_zeroes(0, buffer.size()));
    TRY(device.read(0, buffer.span()));
    report.zeroes_work = disk::all_zero(buffer.span());
    if (!report.zeroes_work) report.add(Level::kBad, "write-zeroes was acknowledged, but the range does not read as zero");
  }
  if (!device.info().has_discard) return {};
  TRY(write_pattern());
  TRY(device.discard(0, buffer.size()));
  TRY(device.read(0, buffer.span()));
  const auto stamp = read_stamp(buffer.span().first(block_bytes));
  report.after_discard = disk::all_zero(buffer.span()) ? AfterDiscard::kZeroes : stamp ? AfterDiscard::kOldData : AfterDiscard::kOther;
  return {};
}

}  // namespace kelda::tools
