#include "tools/selftest_kill.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fmt/format.h>

#include "common/prng.h"
#include "runtime/core.h"
#include "tools/child.h"
#include "tools/selftest_order.h"

namespace kelda::tools {

namespace {

// Runs the writer for so long and kills it; the last number that it acknowledged.
Result<std::uint64_t> write_and_kill(const std::string& disk, std::uint64_t seed, int for_ms) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return Error(Code::kIo, std::string("no pipe: ") + std::strerror(errno));
  auto child = Child::start({"/proc/self/exe", "selftest", "--disk", disk, "--phase", "write", "--force", "--seed", std::to_string(seed)}, {{ends[1], 1}});
  close(ends[1]);
  std::string text;
  bool killed = false, ended = !child;
  auto until_ns = runtime::now_ns() + 20'000'000'000;  // for its first word; then as long as it shall live
  while (!ended) {
    pollfd ready{ends[0], POLLIN, 0};
    if (poll(&ready, 1, 5) > 0) {
      char piece[4096];
      const ssize_t got = read(ends[0], piece, sizeof piece);
      if (got <= 0) break;
      if (text.empty()) until_ns = runtime::now_ns() + static_cast<runtime::TimeNs>(for_ms) * 1'000'000;
      text.append(piece, static_cast<std::size_t>(got));
    }
    if (!killed && runtime::now_ns() >= until_ns) {
      child->kill_now();  // then what it had already said is still read
      killed = true;
    }
  }
  close(ends[0]);
  if (!child) return std::move(child).error();
  if (!killed || text.empty()) return Error(Code::kFailed, "the writing process ended by itself: " + text);
  text.resize(text.rfind('\n') + 1);
  if (text.empty()) return std::uint64_t{0};
  const auto line = text.rfind('\n', text.size() - 2);
  return std::strtoull(text.c_str() + (line == std::string::npos ? 0 : line + 1), nullptr, 10);
}

}  // namespace

Result<> test_kills(const std::string& disk, std::uint64_t seed, double seconds, SelftestReport& report) {
  Prng prng(seed);
  const auto end_ns = runtime::now_ns() + static_cast<runtime::TimeNs>(seconds * 1e9);
  std::uint64_t kills = 0, records = 0, torn = 0, whole = 0, smallest = 0;
  do {
    const std::uint64_t acknowledged = TRY(write_and_kill(disk, prng.next() >> 1, static_cast<int>(prng.between(20, 400))));
    const auto device = TRY(blockdev::open(disk, {.read_only = true}));
    const OrderVerdict verdict = TRY(verify_numbers(*device, acknowledged));
    ++kills;
    records += verdict.checked;
    torn += verdict.unflushed_torn;
    whole += verdict.unflushed_whole;
    if (verdict.smallest_piece_bytes != 0 && (smallest == 0 || verdict.smallest_piece_bytes < smallest)) smallest = verdict.smallest_piece_bytes;
    if (verdict.lost + verdict.misdirected == 0) continue;
    report.add(Level::kBad, fmt::format("after a kill -9 of the writer: {} records are lost and {} blocks misdirected: {}", verdict.lost, verdict.misdirected, verdict.first_problem));
    return {};
  } while (runtime::now_ns() < end_ns);
  report.add(Level::kGood, fmt::format("{} times kill -9 of a writer: {} acknowledged records were all there, in the order of the flushes; of the unflushed ones "
                                       "{} were whole and {} torn{}. A killed process loses no cache: for that cut the power (--phase write)",
                                       kills, records, whole, torn, smallest == 0 ? "" : fmt::format(" (smallest piece: {} bytes)", smallest)));
  return {};
}

}  // namespace kelda::tools
