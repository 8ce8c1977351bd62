// How long things take, how large a write is never seen torn, and whether a flush takes the time that one must take.
#include <algorithm>
#include <array>
#include <vector>

#include <fmt/format.h>

#include "disk/aligned_buffer.h"
#include "runtime/core.h"
#include "tools/selftest.h"
#include "tools/selftest_blocks.h"

namespace kelda::tools {

namespace {

constexpr std::uint64_t kSequentialBytes = 4_MiB;
constexpr std::uint64_t kLargestTorn = 128_KiB;
constexpr unsigned kReaders = 2;
// No medium that forgets without power takes a write in less; a cache does.
constexpr std::uint64_t kImplausibleFlushNs = 15'000;

class Timing {
 public:
  Timing(blockdev::BlockDevice& device, const SelftestPlan& plan, double seconds, SelftestReport& report)
      : device_(device), plan_(plan), each_ns_(static_cast<runtime::TimeNs>(seconds * 1e9 / 8)), report_(report), prng_(plan.seed) {}

  // Repeats one operation; `bytes` a time, for a rate.
  template <class Prepare, class Operation>
  Result<> measure(const char* name, std::uint64_t bytes, Prepare prepare, Operation operation) {
    SelftestTiming timing{name, {}};
    const auto begin_ns = runtime::now_ns();
    runtime::TimeNs busy_ns = 0;
    do {
      TRY(prepare());
      const auto start_ns = runtime::now_ns();
      TRY(operation());
      const auto took_ns = runtime::now_ns() - start_ns;
      timing.latency.add(took_ns);
      busy_ns += took_ns;
    } while (runtime::now_ns() - begin_ns < each_ns_);
    if (bytes != 0 && busy_ns != 0) timing.bytes_per_s = static_cast<double>(bytes * timing.latency.total()) * 1e9 / static_cast<double>(busy_ns);
    report_.timings.push_back(std::move(timing));
    return {};
  }

  Result<> run() {
    const auto nothing = [] { return Result<>(); };
    const auto read = [&] { return device_.read(place(kPageBytes), buffer_.span().first(kPageBytes)); };
    const auto write = [&] { return device_.write(place(kPageBytes), buffer_.span().first(kPageBytes)); };
    // Of another seed: these blocks go anywhere, and must not look misdirected to the test of integrity.
    fill_blocks(buffer_.span(), device_.info().block_bytes, {.seed = ~plan_.seed, .number = 1});
    // Not for ever into the cache.
    const auto flush_some = [&, writes = 0]() mutable { return device_.info().has_flush && ++writes % 8 == 0 ? device_.flush() : Result<>(); };
    TRY(measure("read_4k", 0, nothing, read));
    TRY(measure("write_4k", 0, nothing, write));
    if (device_.info().has_flush) {
      TRY(device_.flush());
      TRY(measure("flush_of_nothing", 0, nothing, [&] { return device_.flush(); }));
      TRY(measure("flush_after_write_4k", 0, write, [&] { return device_.flush(); }));
      TRY(measure("write_4k_and_flush", 0, nothing, [&]() -> Result<> {
        TRY(write());
        return device_.flush();
      }));
    }
    if (device_.info().has_fua) TRY(measure("write_4k_fua", 0, nothing, [&] { return device_.write_durable(place(kPageBytes), buffer_.span().first(kPageBytes)); }));
    TRY(measure("write_4m", kSequentialBytes, flush_some, [&] { return device_.write(place(kSequentialBytes), buffer_.span()); }));
    TRY(measure("read_4m", kSequentialBytes, nothing, [&] { return device_.read(place(kSequentialBytes), buffer_.span()); }));
    judge_flush();
    return {};
  }

 private:
  std::uint64_t place(std::uint64_t bytes) { return prng_.below(plan_.tested_bytes / bytes) * bytes; }

  void judge_flush() {
    if (!device_.info().has_flush) {
      return report_.add(Level::kBad, "the disk offers no flush: Kelda refuses it, unless you accept to lose acknowledged data (--durability none)");
    }
    const auto found = std::ranges::find(report_.timings, std::string("flush_after_write_4k"), &SelftestTiming::name);
    const std::uint64_t median_ns = found->latency.quantile_ns(0.5);
    if (median_ns < kImplausibleFlushNs) {
      report_.add(Level::kSuspicious, fmt::format("a flush after a write takes {:.1f} us: too short to reach a medium. Either the disk has a cache that survives a "
                                                  "power cut, or the flush does nothing; only a power cut tells (--phase write)",
                                                  static_cast<double>(median_ns) / 1000));
    } else {
      report_.add(Level::kGood, fmt::format("a flush after a write takes {:.0f} us: long enough to be real", static_cast<double>(median_ns) / 1000));
    }
  }

  blockdev::BlockDevice& device_;
  const SelftestPlan& plan_;
  const runtime::TimeNs each_ns_;
  SelftestReport& report_;
  Prng prng_;
  disk::AlignedBuffer buffer_{kSequentialBytes};
};

// One place, one writer, readers that look while it writes.
Result<TornSize> look_for_torn(blockdev::BlockDevice& device, const SelftestPlan& plan, std::uint64_t bytes, runtime::TimeNs for_ns) {
  const std::size_t block_bytes = device.info().block_bytes;
  const std::uint64_t offset = round_up(plan.tested_bytes / 2, kLargestTorn);
  TornSize size{bytes};
  bool writing = true;
  std::array<Result<>, kReaders> outcomes;
  runtime::Completion readers;
  const auto reader = [&](unsigned i) {
    disk::AlignedBuffer buffer(bytes);
    while (writing && outcomes[i]) {
      outcomes[i] = device.read(offset, buffer.span().first(bytes));
      std::uint64_t lowest = ~std::uint64_t{0}, highest = 0;
      for (std::size_t at = 0; at < bytes; at += block_bytes) {
        const auto stamp = read_stamp(buffer.span().subspan(at, block_bytes));
        const std::uint64_t number = stamp ? stamp->number : ~std::uint64_t{0} - 1;  // half of a block: torn within it
        lowest = std::min(lowest, number);
        highest = std::max(highest, number);
      }
      ++size.reads;
      if (lowest != highest || highest == ~std::uint64_t{0} - 1) ++size.torn;
    }
  };
  disk::AlignedBuffer buffer(bytes);
  const auto write = [&](std::uint64_t number) {
    fill_blocks(buffer.span().first(bytes), block_bytes, {.seed = plan.seed, .offset = offset, .number = number});
    return device.write(offset, buffer.span().first(bytes));
  };
  TRY(write(1));
  for (unsigned i = 0; i < kReaders; ++i) {
    auto spawned = runtime::spawn_counted(runtime::Core::current(), readers, [&, i] { reader(i); });
    if (!spawned) outcomes[i] = std::move(spawned);
  }
  Result<> written;
  const auto end_ns = runtime::now_ns() + for_ns;
  for (std::uint64_t number = 2; written && runtime::now_ns() < end_ns; ++number) written = write(number);
  writing = false;
  readers.wait();
  TRY(std::move(written));
  for (Result<>& outcome : outcomes) TRY(std::move(outcome));
  return size;
}

}  // namespace

Result<> test_timing(blockdev::BlockDevice& device, const SelftestPlan& plan, double seconds, SelftestReport& report) {
  return Timing(device, plan, seconds, report).run();
}

Result<> test_torn_writes(blockdev::BlockDevice& device, const SelftestPlan& plan, double seconds, SelftestReport& report) {
  std::vector<std::uint64_t> sizes;
  const std::uint64_t largest = std::min<std::uint64_t>(kLargestTorn, device.info().max_transfer_bytes);
  for (std::uint64_t bytes = device.info().block_bytes; bytes <= largest; bytes *= 2) sizes.push_back(bytes);
  std::uint64_t whole = 0;
  for (const std::uint64_t bytes : sizes) {
    report.torn.push_back(TRY(look_for_torn(device, plan, bytes, static_cast<runtime::TimeNs>(seconds * 1e9 / static_cast<double>(sizes.size())))));
    if (report.torn.back().torn == 0 && whole == bytes / 2) whole = bytes;
    if (bytes == sizes.front() && report.torn.back().torn == 0) whole = bytes;
  }
  if (whole == 0) {
    report.add(Level::kSuspicious, fmt::format("single blocks of {} bytes were read half old, half new", device.info().block_bytes));
  } else {
    report.add(Level::kGood, fmt::format("writes up to {} bytes were never read torn while they were written; Kelda needs {} (what a power cut tears "
                                         "may be smaller, and larger writes may be safe as well)",
                                         whole, device.info().block_bytes));
  }
  return {};
}

}  // namespace kelda::tools
