#include "crash_every_io.h"

#include <algorithm>
#include <unordered_set>

#include "common/checksum.h"
#include "common/prng.h"
#include "engine/check.h"
#include "runtime/core_sim.h"

namespace kelda::engine {
namespace {

using blockdev::MemoryDevice;
using blockdev::Survival;
using blockdev::Survived;
using Disk = std::unique_ptr<MemoryDevice>;
using Writes = std::vector<blockdev::Unsettled>;

constexpr std::size_t kEachSubsetUpTo = 6;
constexpr auto kNoProgress = [](std::uint64_t, std::uint64_t) {};

Result<Content> content_of(Database& db) {
  Content content;
  for (const std::string& name : TRY(db.tree_names())) {
    auto& tree = content[name];
    const Tree handle = TRY(db.tree(name, false));
    auto txn = db.begin();
    auto scan = TRY(txn->scan(handle));
    for (bool more = TRY(scan->seek("")); more; more = TRY(scan->next())) tree.emplace(scan->key(), TRY(scan->value()));
    scan.reset();
    TRY(txn->commit());
    if (db.count(handle) != tree.size()) {
      return Error(Code::kCorrupt, "tree " + name + " counts " + std::to_string(db.count(handle)) + " keys and has " +
                                       std::to_string(tree.size()));
    }
  }
  return content;
}

std::string difference(const Content& found, const Content& wanted) {
  for (const auto& [name, tree] : wanted) {
    if (!found.contains(name)) return "tree " + name + " is missing";
    const auto& have = found.at(name);
    for (const auto& [key, value] : tree) {
      if (!have.contains(key)) return name + "/" + key + " is missing";
      if (have.at(key) != value) return name + "/" + key + " has another value";
    }
    for (const auto& [key, value] : have) {
      if (!tree.contains(key)) return name + "/" + key + " should not be there";
    }
  }
  for (const auto& [name, tree] : found) {
    if (!wanted.contains(name)) return "tree " + name + " should not be there";
  }
  return "";
}

// The same numbers for the same content.
std::uint64_t hash(const Told& told) {
  std::string all;
  const auto add = [&](const std::string& text) { all += std::to_string(text.size()) + ':' + text; };
  const auto add_content = [&](const Content& content) {
    for (const auto& [name, tree] : content) {
      add(name);
      for (const auto& [key, value] : tree) add(key), add(value);
    }
    add("");
  };
  add_content(told.acknowledged);
  for (const Content& next : told.under_way) add_content(next);
  return checksum64(as_bytes(all), 0);
}

// Everything that must hold of a disk after a cut. `number` decides whether (one in four) and where recovery is cut as
// well.
void verify(Disk disk, const Told& told, std::uint64_t number, bool always_cut) {
  if (number % 4 == 0 || always_cut) {
    disk->set_plan({.crash_after_ops = disk->op_count() + number / 4 % 40});
    if (auto db = open_database(*disk, true)) db->reset();
    disk = disk->crash(Survival::kRandom, number);
  }
  Content first;
  {
    auto db = open_database(*disk, true);
    ASSERT_OK(db);
    auto content = content_of(**db);
    ASSERT_OK(content);
    first = std::move(*content);
    ASSERT_OK((*db)->health());
    disk->cut_power();
  }
  bool promised = first == told.acknowledged;
  for (const Content& next : told.under_way) promised = promised || first == next;
  ASSERT_TRUE(promised) << "against what was acknowledged: " << difference(first, told.acknowledged)
                        << "; against what was under way: " << difference(first, told.newest());
  disk = disk->crash(Survival::kNone);
  {
    auto db = open_database(*disk);
    ASSERT_OK(db);
    auto content = content_of(**db);
    ASSERT_OK(content);
    ASSERT_TRUE(*content == first) << "the second recovery: " << difference(*content, first);
    auto tree = (*db)->tree("goes on", true);
    ASSERT_OK(tree);
    ASSERT_OK((*db)->put(*tree, "after", "the crash"));
    ASSERT_OK((*db)->close());
  }
  auto checked = check_disk(disk->crash(Survival::kNone), {.memory_bytes = kSessionMemoryBytes}, kNoProgress);
  ASSERT_OK(checked);
  ASSERT_TRUE(checked->sound()) << checked->problems.front();
  ASSERT_TRUE(checked->was_clean);
}

using Outcome = std::vector<Survived>;

Outcome all_or_none(const Writes& writes, FunctionRef<bool(std::size_t)> survives) {
  Outcome outcome;
  for (std::size_t i = 0; i < writes.size(); ++i) outcome.push_back({0, survives(i) ? writes[i].length_bytes : 0});
  return outcome;
}

// Indices of the writes that make a difference. Without one: zeroes written ahead where nothing was ever written. All
// indices, if they are not to be `sorted_out`, which takes time.
std::vector<std::size_t> that_matter(MemoryDevice& disk, const Writes& writes, bool sorted_out) {
  const std::uint64_t none = disk.crash(all_or_none(writes, [](std::size_t) { return false; }))->fingerprint();
  std::vector<std::size_t> matter;
  for (std::size_t i = 0; i < writes.size(); ++i) {
    const auto overlaps = [&](const blockdev::Unsettled& other) {
      return &other != &writes[i] && other.offset_bytes < writes[i].offset_bytes + writes[i].length_bytes &&
             writes[i].offset_bytes < other.offset_bytes + other.length_bytes;
    };
    const auto changes = [&] {
      return disk.crash(all_or_none(writes, [i](std::size_t other) { return other == i; }))->fingerprint() != none;
    };
    if (!sorted_out || std::ranges::any_of(writes, overlaps) || changes()) matter.push_back(i);
  }
  return matter;
}

void add_whole_writes(const Writes& writes, std::span<const std::size_t> matter, Prng& prng, std::vector<Outcome>& outcomes) {
  const std::size_t count = matter.size();
  // `survives` is asked about the writes that matter, by their numbers among these.
  const auto add = [&](FunctionRef<bool(std::size_t)> survives) {
    outcomes.push_back(all_or_none(writes, [](std::size_t) { return false; }));
    for (std::size_t i = 0; i < count; ++i) {
      if (survives(i)) outcomes.back()[matter[i]].to_bytes = writes[matter[i]].length_bytes;
    }
  };
  if (count <= kEachSubsetUpTo) {
    for (std::uint64_t mask = 0; mask < std::uint64_t{1} << count; ++mask) {
      add([&](std::size_t i) { return (mask >> i & 1) != 0; });
    }
    return;
  }
  add([](std::size_t) { return false; });
  for (std::size_t one = 0; one < count; ++one) {
    add([&](std::size_t i) { return i <= one; });
    add([&](std::size_t i) { return i != one; });
    add([&](std::size_t i) { return i == one; });
  }
  for (int sample = 0; sample < 32; ++sample) {
    const std::uint64_t seed = prng.next();
    add([&](std::size_t i) { return checksum64({}, seed + i) % 2 == 0; });
  }
}

// Boundaries: the first unit, each page's end up to some, the middle, the last unit. The medium got what is before it, or
// what is behind.
void add_torn_writes(const Writes& writes, std::span<const std::size_t> matter, bool every_sector,
                     std::vector<Outcome>& outcomes) {
  constexpr std::uint64_t kUnit = 512;
  for (const std::size_t torn : matter) {
    const std::uint64_t length = writes[torn].length_bytes;
    std::vector<std::uint64_t> boundaries{kUnit, kPageBytes - kUnit, round_down(length / 2, kUnit), length - kUnit};
    for (std::uint64_t page = 1; page <= 8; ++page) boundaries.push_back(page * kPageBytes);
    for (std::uint64_t at = kUnit; every_sector && at < length; at += kUnit) boundaries.push_back(at);
    std::erase_if(boundaries, [&](std::uint64_t at) { return at == 0 || at >= length; });
    std::ranges::sort(boundaries);
    boundaries.erase(std::unique(boundaries.begin(), boundaries.end()), boundaries.end());
    for (const std::uint64_t at : boundaries) {
      for (const bool others : {false, true}) {
        for (const Survived part : {Survived{0, at}, Survived{at, length}}) {
          outcomes.push_back(all_or_none(writes, [&](std::size_t) { return others; }));
          outcomes.back()[torn] = part;
        }
      }
    }
  }
}

// Runs the body as a fiber of a simulated core, so that every run is the same until the cut.
void simulate(FunctionRef<void()> body) {
  const auto ran = runtime::run_simulated({.core_count = 1, .max_steps = 20'000'000}, [&](runtime::Runtime&) {
    body();
    return 0;
  });
  ASSERT_TRUE(ran.has_value()) << ran.error().to_string();
}

struct Start {
  Disk disk;
  Told told;
};

Start prepare(const Script& script) {
  Start start;
  simulate([&] {
    const blockdev::MemoryOptions options{.size_bytes = script.size_bytes, .has_fua = script.has_fua};
    Session session(std::make_unique<MemoryDevice>(options));
    if (script.prepare) {
      ASSERT_OK(session.open(true));
      ASSERT_OK(script.prepare(session));
      if (script.clean) ASSERT_OK(session.close());
    }
    session.disk().cut_power();
    session.abandon();
    start.disk = session.disk().crash(script.clean ? Survival::kNone : Survival::kRandom, 7);
    start.told = session.told;
  });
  return start;
}

// The cut at operation `n`. False if the script ended before it.
bool cut_at(const Script& script, const Start& start, std::uint64_t n, const Depth& depth,
            std::unordered_set<std::uint64_t>& seen, Coverage& coverage) {
  Session session(start.disk->crash(Survival::kAll), start.told);
  if (!script.opens) {
    const auto opened = session.open();
    EXPECT_TRUE(opened.has_value()) << opened.error().to_string();
    if (!opened) return false;
    session.rest();
  }
  MemoryDevice& disk = session.disk();
  disk.set_plan({.crash_after_ops = disk.op_count() + n});
  const auto ended = script.body(session);
  const bool was_cut = disk.dead();
  EXPECT_TRUE(ended.has_value() || was_cut) << ended.error().to_string();
  const auto writes = disk.cut_power();
  session.abandon();
  std::vector<Outcome> outcomes;
  Prng prng(n + 1);
  const auto matter = that_matter(disk, writes, depth.share == 1);
  add_whole_writes(writes, matter, prng, outcomes);
  add_torn_writes(writes, matter, depth.every_sector, outcomes);
  const std::uint64_t told = hash(session.told);
  coverage.outcomes += outcomes.size();
  for (const Outcome& outcome : outcomes) {
    if (prng.below(depth.share) != 0) continue;
    Disk left = disk.crash(outcome);
    const std::uint64_t state = left->fingerprint() ^ told;
    if (!seen.insert(state).second) continue;
    ++coverage.states;
    std::string survived;
    for (const auto& [from, to] : outcome) survived += " " + std::to_string(from) + "-" + std::to_string(to);
    SCOPED_TRACE(std::string(script.name) + ": power cut at operation " + std::to_string(n) + ", surviving bytes of " +
                 std::to_string(writes.size()) + " writes:" + survived);
    verify(std::move(left), session.told, Prng(state).next(), depth.every_sector);
    if (testing::Test::HasFailure()) return false;
  }
  return was_cut;
}

}  // namespace

Coverage crash_at_every_operation(const Script& script, const Depth& depth) {
  Coverage coverage;
  const Start start = prepare(script);
  std::unordered_set<std::uint64_t> seen;
  bool more = !testing::Test::HasFailure();
  for (std::uint64_t n = 0; more; ++n) {
    simulate([&] { more = cut_at(script, start, n, depth, seen, coverage); });
    more = more && !testing::Test::HasFailure();
    coverage.operations += more;
  }
  return coverage;
}

Coverage cut_recovery_again_and_again(const Script& script, std::uint64_t rounds) {
  Coverage coverage;
  const Start start = prepare(script);
  for (std::uint64_t round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE(std::string(script.name) + ": again and again, round " + std::to_string(round));
    simulate([&] {
      Prng prng(round + 1);
      Disk disk = start.disk->crash(Survival::kAll);
      // The longer it lasts, the further each attempt may come: at last one gets through.
      for (std::uint64_t limit = 4;; limit += 1 + limit / 4) {
        disk->set_plan({.crash_after_ops = prng.below(limit)});
        const bool through = open_database(*disk).has_value();
        disk = disk->crash(Survival::kRandom, prng.next());
        ++coverage.operations;
        ++coverage.outcomes;
        if (through) break;
      }
      ++coverage.states;
      verify(std::move(disk), start.told, 1, false);
    });
  }
  return coverage;
}

}  // namespace kelda::engine
