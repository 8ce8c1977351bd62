// `kelda selftest`: the command. Its tests are in the selftest_*.cc beside it.
#include "tools/selftest.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>

#include <fmt/format.h>

#include "disk/aligned_buffer.h"
#include "disk/page_check.h"
#include "disk/superblock.h"
#include "runtime/machine.h"
#include "tools/commands.h"
#include "tools/json.h"
#include "tools/progress.h"
#include "tools/selftest_blocks.h"
#include "tools/selftest_kill.h"
#include "tools/selftest_order.h"

namespace kelda::tools {

namespace {

constexpr std::uint64_t kMostTestedBytes = 128_MiB;
constexpr std::uint64_t kLeastBytes = 16_MiB;
constexpr double kDefaultSeconds = 60;

// Blank, or left behind by an earlier self-test.
Result<> may_destroy(blockdev::BlockDevice& device) {
  const std::string& name = device.info().name;
  const auto refuse = [&](const std::string& what) {
    return Error(Code::kExists, name + " is not blank (" + what + "): a self-test destroys what a disk holds. Name a scratch disk, or say --force");
  };
  disk::AlignedBuffer buffer(1_MiB);
  TRY(device.read(0, buffer.span()));
  if (read_stamp(buffer.span().first(device.info().block_bytes))) return {};
  const auto superblock = disk::Superblock::read(device);
  if (superblock) return refuse("it is a Kelda disk");
  if (!superblock.failed_with(Code::kBlankDisk)) return refuse(superblock.error().message());
  for (std::uint64_t at = 0; at < selftest_bytes(device.info()); at += buffer.size()) {
    TRY(device.read(at, buffer.span()));
    if (!disk::all_zero(buffer.span())) return refuse(fmt::format("there is data at byte {}", at));
  }
  return {};
}

Result<> check_device(blockdev::BlockDevice& device) {
  const auto& info = device.info();
  if (info.read_only) return Error(Code::kInvalidArgument, info.name + " is read-only");
  if (info.size_bytes < kLeastBytes) return Error(Code::kTooSmall, info.name + " is smaller than 16 MiB: name a larger disk");
  if (kPageBytes % info.block_bytes != 0) return Error(Code::kUnsupported, info.name + " has blocks of more than 4096 bytes");
  return {};
}

const char* word_of(Level level) { return level == Level::kGood ? "ok" : level == Level::kSuspicious ? "SUSPICIOUS" : "BAD"; }
const char* word_of(AfterDiscard after) {
  switch (after) {
    case AfterDiscard::kNotOffered: return "not offered";
    case AfterDiscard::kZeroes: return "reads as zero";
    case AfterDiscard::kOldData: return "the old data stays readable";
    case AfterDiscard::kOther: return "reads as something else";
  }
  __builtin_unreachable();
}
const char* verdict_of(Level worst) {
  switch (worst) {
    case Level::kGood: return "fit, as far as software can tell without a power cut";
    case Level::kSuspicious: return "fit as far as seen, but something is SUSPICIOUS: read above";
    case Level::kBad: return "NOT FIT for data that must not be lost";
  }
  __builtin_unreachable();
}

void print_for_people(const blockdev::DeviceInfo& info, const SelftestReport& r) {
  const auto yes = [](bool value) { return value ? "yes" : "no"; };
  std::printf("%s: %s, %s, %u B blocks, flush %s, FUA %s, discard %s, write zeroes %s\n", info.name.c_str(), format_size(info.size_bytes).c_str(),
              info.driver.c_str(), info.block_bytes, yes(info.has_flush), yes(info.has_fua), yes(info.has_discard), yes(info.has_write_zeroes));
  std::printf("%-22s %12s %12s %12s\n", "microseconds", "median", "99%", "longest");
  for (const auto& t : r.timings) {
    std::printf("%-22s %12.1f %12.1f %12.1f", t.name.c_str(), static_cast<double>(t.latency.quantile_ns(0.5)) / 1000,
                static_cast<double>(t.latency.quantile_ns(0.99)) / 1000, static_cast<double>(t.latency.max_ns()) / 1000);
    if (t.bytes_per_s > 0) std::printf("  %s/s", format_size(static_cast<std::uint64_t>(t.bytes_per_s)).c_str());
    std::printf("\n");
  }
  for (const auto& t : r.torn) {
    std::printf("write of %6" PRIu64 " bytes: %" PRIu64 " of %" PRIu64 " reads meanwhile saw it torn\n", t.bytes, t.torn, t.reads);
  }
  std::printf("after a discard: %s\n", word_of(r.after_discard));
  for (const auto& finding : r.findings) std::printf("%s: %s\n", word_of(finding.level), finding.text.c_str());
  std::printf("verdict: %s\n", verdict_of(r.worst()));
}

void print_json(const blockdev::DeviceInfo& info, const SelftestReport& r) {
  JsonWriter json;
  json.begin_object();
  json.field("disk", info.name).field("driver", info.driver).field("size_bytes", info.size_bytes).field("block_bytes", info.block_bytes);
  json.field("flush", info.has_flush).field("fua", info.has_fua).field("discard", info.has_discard).field("write_zeroes", info.has_write_zeroes);
  json.field("seed", r.seed).field("tested_bytes", r.tested_bytes);
  json.field("blocks_written", r.counts.blocks_written).field("blocks_read", r.counts.blocks_read);
  json.field("lost", r.counts.lost).field("misdirected", r.counts.misdirected).field("damaged", r.counts.damaged).field("unreadable", r.counts.unreadable);
  json.begin_array("timings");
  for (const auto& t : r.timings) {
    json.begin_object();
    json.field("name", t.name).field("count", t.latency.total()).field("median_ns", t.latency.quantile_ns(0.5));
    json.field("p99_ns", t.latency.quantile_ns(0.99)).field("max_ns", t.latency.max_ns()).field("bytes_per_s", t.bytes_per_s);
    json.end_object();
  }
  json.end_array();
  json.begin_array("torn");
  for (const auto& t : r.torn) {
    json.begin_object();
    json.field("bytes", t.bytes).field("reads", t.reads).field("torn", t.torn);
    json.end_object();
  }
  json.end_array();
  json.field("after_discard", word_of(r.after_discard));
  json.begin_array("findings");
  for (const auto& finding : r.findings) {
    json.begin_object();
    json.field("level", word_of(finding.level)).field("text", finding.text);
    json.end_object();
  }
  json.end_array();
  json.field("fit", r.worst() != Level::kBad).field("suspicious", r.worst() == Level::kSuspicious);
  json.end_object();
  std::printf("%s\n", json.text().c_str());
}

int exit_code(Level worst) { return worst == Level::kGood ? 0 : worst == Level::kSuspicious ? kExitIncomplete : kExitFailed; }

Result<std::unique_ptr<blockdev::BlockDevice>> open_scratch(const SelftestOptions& options) {
  auto device = TRY(blockdev::open(options.disk, {.create_bytes = options.create_bytes}));
  TRY(check_device(*device));
  if (!options.force) TRY(may_destroy(*device));
  return device;
}

Result<int> run_all(const SelftestOptions& options, std::uint64_t seed) {
  auto device = TRY(open_scratch(options));
  const blockdev::DeviceInfo info = device->info();
  const bool bare = runtime::machine_info().bare;
  if (!options.json) std::printf("seed %" PRIu64 "\n", seed), std::fflush(stdout);
  const double seconds = options.seconds > 0 ? options.seconds : kDefaultSeconds;
  const SelftestPlan plan{.seed = seed, .seconds = seconds * (bare ? 1.0 : 0.8), .tested_bytes = selftest_bytes(info)};
  Result<SelftestReport> report = Code::kFailed;
  {
    Progress progress("ms");
    report = run_selftest(*device, plan, progress);
  }
  if (!report) return std::move(report).error();
  device.reset();
  if (bare) {
    report->add(Level::kGood, "the order of writes and flushes was not tested: write with --phase write, end the machine, and --phase verify");
  } else {
    TRY(test_kills(options.disk, seed, seconds * 0.2, *report));
  }
  device = TRY(blockdev::open(options.disk));
  TRY(device->write_zeroes(0, plan.tested_bytes));
  if (info.has_flush) TRY(device->flush());
  options.json ? print_json(info, *report) : print_for_people(info, *report);
  return exit_code(report->worst());
}

Result<int> run_write(const SelftestOptions& options, std::uint64_t seed) {
  const auto device = TRY(open_scratch(options));
  const auto begin_ns = runtime::now_ns();
  const auto stop = [&] { return options.seconds > 0 && static_cast<double>(runtime::now_ns() - begin_ns) > options.seconds * 1e9; };
  const auto acknowledge = [](std::uint64_t number) {
    std::printf("%" PRIu64 "\n", number);
    std::fflush(stdout);
  };
  TRY(write_numbers(*device, seed, stop, acknowledge));
  return 0;
}

Result<int> run_verify(const SelftestOptions& options) {
  const auto device = TRY(blockdev::open(options.disk, {.read_only = true}));
  if (device->info().size_bytes < kLeastBytes) return Error(Code::kTooSmall, options.disk + " is smaller than 16 MiB: no self-test was written here");
  const OrderVerdict v = TRY(verify_numbers(*device, options.acknowledged));
  const bool good = v.lost + v.misdirected == 0;
  if (options.json) {
    JsonWriter json;
    json.begin_object();
    json.field("disk", options.disk).field("seed", v.seed).field("fit", good).field("acknowledged", options.acknowledged).field("highest_seen", v.highest_seen);
    json.field("checked", v.checked).field("lost", v.lost).field("misdirected", v.misdirected);
    json.field("unflushed_whole", v.unflushed_whole).field("unflushed_torn", v.unflushed_torn).field("smallest_piece_bytes", v.smallest_piece_bytes);
    json.field("first_problem", v.first_problem);
    json.end_object();
    std::printf("%s\n", json.text().c_str());
  } else {
    std::printf("seed %" PRIu64 ", acknowledged up to %" PRIu64 ", records seen up to %" PRIu64 "\n", v.seed, options.acknowledged, v.highest_seen);
    std::printf("%" PRIu64 " records had to be there: %" PRIu64 " lost, %" PRIu64 " blocks misdirected\n", v.checked, v.lost, v.misdirected);
    std::printf("of records that no flush had covered, %" PRIu64 " are whole and %" PRIu64 " torn", v.unflushed_whole, v.unflushed_torn);
    if (v.smallest_piece_bytes != 0) std::printf(", the smallest piece %" PRIu64 " bytes", v.smallest_piece_bytes);
    std::printf("\n");
    if (!good) std::printf("BAD: %s\n", v.first_problem.c_str());
    std::printf("verdict: %s\n", good ? "what was flushed is there" : "NOT FIT: what was flushed is not all there");
  }
  return good ? 0 : kExitFailed;
}

}  // namespace

std::uint64_t selftest_bytes(const blockdev::DeviceInfo& info) { return std::min(kMostTestedBytes, round_down(info.size_bytes, 1_MiB)); }

Result<SelftestReport> run_selftest(blockdev::BlockDevice& device, const SelftestPlan& plan, SelftestProgress progress) {
  SelftestReport report;
  report.seed = plan.seed;
  report.tested_bytes = plan.tested_bytes;
  const auto total = static_cast<std::uint64_t>(plan.seconds * 1000);
  progress(0, total);
  TRY(test_timing(device, plan, plan.seconds * 0.4, report));
  progress(total * 4 / 10, total);
  TRY(test_torn_writes(device, plan, plan.seconds * 0.2, report));
  progress(total * 6 / 10, total);
  TRY(test_integrity(device, plan, plan.seconds * 0.4, report));
  progress(total, total);
  TRY(test_discard(device, plan, report));
  return report;
}

int selftest(const SelftestOptions& options) {
  Result<int> done = kExitFailed;
  auto code = runtime::Runtime::run({.core_count = 1}, [&](runtime::Runtime&) {
    const std::uint64_t seed = options.seed != 0 ? options.seed : runtime::random_u64() >> 1;
    done = options.phase == "write" ? run_write(options, seed) : options.phase == "verify" ? run_verify(options) : run_all(options, seed);
    return 0;
  });
  if (!code) done = std::move(code).error();
  if (done) return *done;
  std::fprintf(stderr, "kelda selftest: %s\n", done.error().to_string().c_str());
  return kExitFailed;
}

}  // namespace kelda::tools
