// The scripts. Complete/* looks at every outcome of every cut; Short/*, for the VM, at a share of them; Soak/* tears each
// write at every sector.
#include <cstdio>

#include "crash_every_io.h"
#include "disk/superblock.h"

namespace kelda::engine {
namespace {

std::string key_of(int i) { return "key" + std::string(3 - std::to_string(i).size(), '0') + std::to_string(i); }
std::string text(int i, std::size_t bytes) { return std::to_string(i) + std::string(bytes, static_cast<char>('a' + i % 26)); }

Result<> fill(Session& s, const std::string& tree, int from, int to, std::size_t value_bytes) {
  auto txn = s.begin();
  for (int i = from; i < to; ++i) TRY(txn.put(tree, key_of(i), text(i, value_bytes)));
  return txn.commit();
}

Result<> two_trees(Session& s) {
  TRY(s.make_tree("t"));
  TRY(s.make_tree("u"));
  return fill(s, "t", 0, 20, 50);
}

Result<> format(Session& s) {
  TRY(s.open(true));
  TRY(s.make_tree("t"));
  return s.put("t", "a", "1");
}

Result<> commit(Session& s) {
  for (int i = 0; i < 3; ++i) {
    auto txn = s.begin();
    TRY(txn.put("t", key_of(i), text(i, 80)));
    TRY(txn.remove("t", key_of(10 + i)));
    TRY(txn.put("u", key_of(i), text(i, 10)));
    TRY(txn.commit());
  }
  // One flush for three, in order.
  for (int i = 0; i < 3; ++i) {
    auto txn = s.begin();
    TRY(txn.put("t", "shared", std::to_string(i)));
    TRY(txn.put("u", "shared", std::to_string(i)));
    TRY(txn.commit_no_wait());
  }
  return s.put("t", "last", "1");
}

Result<> roll_back(Session& s) {
  auto undone = s.begin();
  for (int i = 0; i < 20; i += 2) TRY(undone.put("t", key_of(i), "never"));
  for (int i = 1; i < 20; i += 2) TRY(undone.remove("t", key_of(i)));
  TRY(undone.put("u", "large", text(1, 9000)));
  TRY(s.db().checkpoint());  // its pages go out
  TRY(s.put("u", "other", "1"));
  TRY(undone.put("t", key_of(0), "never either"));
  TRY(undone.roll_back());
  TRY(s.put("u", "after", "2"));
  auto half = s.begin();
  TRY(half.put("t", "kept", "1"));
  const auto savepoint = TRY(half.raw().savepoint());
  TRY(half.raw().put(TRY(s.db().tree("t", false)), "dropped", "2"));
  TRY(half.raw().roll_back_to(savepoint));
  TRY(s.put("u", "flushes it", "3"));  // half rolled back, as far as the disk knows
  return half.commit();
}

// More than the log's buffers hold: it goes out in several batches while the transactions are open.
Result<> large_transactions(Session& s) {
  for (const bool commits : {false, true}) {
    auto txn = s.begin();
    for (int i = 0; i < 7; ++i) TRY(txn.put("t", key_of(i), text(i + commits, 90'000)));
    TRY(commits ? txn.commit() : txn.roll_back());
  }
  return {};
}

Result<> nearly_full_leaf(Session& s) {
  TRY(s.make_tree("t"));
  return fill(s, "t", 0, 12, 280);
}

Result<> split(Session& s) {
  TRY(fill(s, "t", 12, 16, 280));  // the root becomes an inner node
  TRY(s.db().checkpoint());
  for (int i = 100; i < 106; ++i) TRY(s.put("t", key_of(i), text(i, 900)));
  auto undone = s.begin();
  for (int i = 200; i < 210; ++i) TRY(undone.put("t", key_of(i), text(i, 900)));
  TRY(undone.roll_back());
  return s.db().checkpoint();
}

std::string long_key(int i) { return std::string(700, static_cast<char>('a' + i % 3)) + key_of(i); }

// Long keys: few children a node, so the tree is three levels high soon.
Result<> inner_split(Session& s) {
  for (int from = 0; from < 60; from += 20) {
    auto txn = s.begin();
    for (int i = from; i < from + 20; ++i) TRY(txn.put("t", long_key(i), text(i, 300)));
    TRY(txn.commit());
  }
  return s.db().checkpoint();
}

Result<> three_levels(Session& s) {
  TRY(s.make_tree("t"));
  return inner_split(s);
}

Result<> merge(Session& s) {
  for (int from = 0; from < 60; from += 15) {
    auto txn = s.begin();
    for (int i = from; i < from + 15; ++i) {
      if (i % 20 != 7) TRY(txn.remove("t", long_key(i)));
    }
    if (from == 15) {
      TRY(txn.roll_back());
    } else {
      TRY(txn.commit());
    }
    if (from == 30) TRY(s.db().checkpoint());
  }
  return s.db().checkpoint();
}

Result<> large_values(Session& s) {
  TRY(two_trees(s));
  return fill(s, "u", 0, 3, 14'000);
}

Result<> overflow(Session& s) {
  TRY(s.put("u", "new", text(1, 20'000)));
  TRY(s.put("u", key_of(0), text(5, 30'000)));
  TRY(s.put("u", key_of(1), "short now"));
  auto undone = s.begin();
  TRY(undone.put("u", key_of(2), text(6, 5'000)));
  TRY(undone.put("u", key_of(2), text(7, 9'000)));
  TRY(undone.remove("u", "new"));
  TRY(s.db().checkpoint());
  TRY(s.put("t", "takes freed pages", text(8, 12'000)));
  TRY(undone.roll_back());
  auto txn = s.begin();
  TRY(txn.remove("u", key_of(0)));
  TRY(txn.put("u", key_of(2), text(9, 9'000)));
  TRY(txn.commit());
  return s.db().checkpoint();
}

// Two transactions open over checkpoints; one of them to the end.
Result<> checkpoint(Session& s) {
  auto forgotten = s.begin(), late = s.begin();
  TRY(forgotten.put("t", key_of(3), "never"));
  TRY(forgotten.put("u", "never", text(1, 6000)));
  TRY(late.put("t", key_of(5), "late"));
  TRY(fill(s, "u", 0, 12, 300));
  TRY(s.db().checkpoint());
  TRY(late.put("t", key_of(7), "late too"));
  TRY(forgotten.remove("t", key_of(9)));
  TRY(s.put("u", "between", "1"));
  TRY(s.db().checkpoint());
  TRY(late.commit());
  TRY(s.put("u", "after", "2"));
  return s.db().checkpoint();
}

// A ring of 2 MiB (the least) filled nearly to its end.
Result<> nearly_full_ring(Session& s) {
  TRY(s.make_tree("t"));
  for (int i = 0; i < 17; ++i) TRY(s.put("t", key_of(i % 5), text(i, 90'000)));
  return {};
}

Result<> log_wrap(Session& s) {
  auto old = s.begin();
  TRY(old.put("t", "open all the time", "1"));
  for (int i = 0; i < 9; ++i) TRY(s.put("t", key_of(i % 5), text(50 + i, 40'000 + i * 7'000)));
  TRY(s.db().checkpoint());
  const auto superblock = TRY(disk::Superblock::read(s.disk()));
  const bool wrapped = superblock.checkpoint().log_position > superblock.layout().log_bytes;
  return wrapped ? Result<>() : Error(Code::kFailed, "the log has not wrapped");
}

Result<> to_be_dropped(Session& s) {
  TRY(two_trees(s));
  TRY(s.make_tree("v"));
  TRY(fill(s, "t", 20, 60, 400));
  TRY(fill(s, "v", 0, 3, 9'000));
  return fill(s, "v", 3, 30, 300);
}

Result<> drop(Session& s) {
  auto undone = s.begin();
  TRY(undone.clear("t"));
  TRY(undone.put("t", "never", "1"));
  TRY(undone.roll_back());
  auto txn = s.begin();
  TRY(txn.put("u", "with it", "1"));
  TRY(txn.clear("t"));
  TRY(txn.put("t", "first", "1"));
  TRY(txn.commit());
  s.rest();
  TRY(s.drop_tree("v"));
  s.rest();
  TRY(s.make_tree("v"));
  return s.db().checkpoint();
}

// Pages that are freed, discarded, and used again, with a transaction open that may want its own back.
Result<> discard(Session& s) {
  auto open = s.begin();
  TRY(open.put("v", key_of(1), "never"));
  TRY(s.put("v", key_of(0), "short now"));
  auto unsure = s.begin();
  TRY(unsure.put("v", key_of(2), "short too"));
  (void)TRY(unsure.commit_no_wait());
  TRY(s.db().checkpoint());  // discards what it covers
  TRY(s.put("v", "takes them again", text(4, 100'000)));
  TRY(s.db().checkpoint());
  TRY(open.roll_back());
  TRY(s.drop_tree("v"));
  s.rest();
  return s.db().checkpoint();
}

Result<> long_values(Session& s) {
  TRY(s.make_tree("v"));
  TRY(fill(s, "v", 0, 3, 100'000));
  return s.db().checkpoint();
}

// Pages far from each other, so that each is a write of its own; more batches than the double-write area has slots.
Result<> many_trees(Session& s) {
  for (int i = 0; i < 6; ++i) {
    TRY(s.make_tree("t" + std::to_string(i)));
    TRY(s.put("t" + std::to_string(i), "large", text(i, 9'000)));
  }
  return {};
}

Result<> double_write(Session& s) {
  for (int round = 0; round < 8; ++round) {
    auto txn = s.begin();
    for (int i = round % 2; i < 6; i += 2) TRY(txn.put("t" + std::to_string(i), "small", std::to_string(round)));
    TRY(txn.commit());
    TRY(s.db().checkpoint());
  }
  return {};
}

Result<> shutdown(Session& s) {
  TRY(s.put("t", "last", "1"));
  TRY(fill(s, "u", 0, 5, 5'000));
  return s.close();
}

Result<> start(Session& s) {
  TRY(s.open());
  return s.put("t", "first", "1");
}

// All that recovery has to do at once: redo of splits and values, a transaction to undo whose pages were written, one
// that was rolled back half, a cleared tree to reclaim, pages torn in flight.
Result<> much_to_recover(Session& s) {
  TRY(to_be_dropped(s));
  static constexpr int kKeys = 12;
  auto open = s.begin();
  for (int i = 0; i < kKeys; ++i) TRY(open.put("u", long_key(i), text(i, 400)));
  TRY(open.put("u", "large", text(1, 9'000)));
  TRY(open.remove("v", key_of(20)));
  TRY(s.db().checkpoint());
  TRY(fill(s, "v", 100, 110, 700));
  TRY(open.put("v", "never", "1"));
  auto txn = s.begin();
  TRY(txn.clear("t"));
  TRY(txn.put("t", "first", "1"));
  TRY(txn.commit());
  const auto savepoint = TRY(open.raw().savepoint());
  for (int i = 0; i < 5; ++i) TRY(open.put("v", key_of(i), "never"));
  TRY(open.raw().roll_back_to(savepoint));
  TRY(s.put("v", "last", text(2, 6'000)));
  // Cut in the middle of a checkpoint: slots are written, pages not all in place.
  s.disk().set_plan({.crash_after_ops = s.disk().op_count() + 5});
  (void)s.db().checkpoint();
  (void)open.raw().roll_back();
  return {};
}

Result<> recover(Session& s) { return s.open(); }

// The device is larger than its disk, into groups of pages that are new, and something else lies where their maps will be.
Result<> grow(Session& s) {
  constexpr std::uint64_t kSizeBytes = 270_MiB;
  s.disk().grow(kSizeBytes);
  const auto layout = TRY(disk::Superblock::read(s.disk())).layout().grown_to(kSizeBytes);
  const std::string garbage(kPageBytes, '\xa5');
  for (std::uint64_t group = 1; group <= 2; ++group) {
    s.disk().poke(layout.offset_of(PageId(group * disk::kPagesPerSpaceMap)), as_bytes(garbage));
  }
  TRY(s.open());
  TRY(s.put("t", "first", "1"));
  return s.put("u", "new", text(1, 20'000));
}

// The least numbers are nine tenths of what was counted when they were written down.
const Script kScripts[] = {
    {.name = "format", .prepare = {}, .body = format,
     .least_operations = 27, .least_states = 12, .opens = true},
    {.name = "commit", .prepare = two_trees, .body = commit,
     .least_operations = 6, .least_states = 16},
    {.name = "commit, no FUA", .prepare = two_trees, .body = commit,
     .least_operations = 9, .least_states = 16, .has_fua = false},
    {.name = "roll-back", .prepare = two_trees, .body = roll_back,
     .least_operations = 12, .least_states = 66},
    {.name = "large transactions", .prepare = two_trees, .body = large_transactions,
     .least_operations = 37, .least_states = 404},
    {.name = "leaf split", .prepare = nearly_full_leaf, .body = split,
     .least_operations = 23, .least_states = 116},
    {.name = "inner split", .prepare = two_trees, .body = inner_split,
     .least_operations = 15, .least_states = 149},
    {.name = "merge", .prepare = three_levels, .body = merge,
     .least_operations = 63, .least_states = 444},
    {.name = "overflow values", .prepare = large_values, .body = overflow,
     .least_operations = 27, .least_states = 236},
    {.name = "checkpoint", .prepare = two_trees, .body = checkpoint,
     .least_operations = 26, .least_states = 93},
    {.name = "checkpoint, no FUA", .prepare = two_trees, .body = checkpoint,
     .least_operations = 32, .least_states = 93, .has_fua = false},
    {.name = "log wrap", .prepare = nearly_full_ring, .body = log_wrap,
     .least_operations = 43, .least_states = 970},
    {.name = "clear and drop", .prepare = to_be_dropped, .body = drop,
     .least_operations = 27, .least_states = 72},
    {.name = "discard", .prepare = long_values, .body = discard,
     .least_operations = 33, .least_states = 475},
    {.name = "double write", .prepare = many_trees, .body = double_write,
     .least_operations = 78, .least_states = 254},
    {.name = "clean shutdown", .prepare = two_trees, .body = shutdown,
     .least_operations = 11, .least_states = 81},
    {.name = "start", .prepare = two_trees, .body = start,
     .least_operations = 17, .least_states = 5, .opens = true},
    {.name = "growth", .prepare = two_trees, .body = grow,
     .least_operations = 32, .least_states = 45, .opens = true},
    {.name = "growth in recovery", .prepare = much_to_recover, .body = grow,
     .least_operations = 66, .least_states = 190, .clean = false, .opens = true},
    {.name = "recovery", .prepare = much_to_recover, .body = recover,
     .least_operations = 57, .least_states = 147, .clean = false, .opens = true},
};

void print(const char* name, const Coverage& c) {
  std::printf("  %-24s %10llu %10llu %10llu\n", name, static_cast<unsigned long long>(c.operations),
              static_cast<unsigned long long>(c.outcomes), static_cast<unsigned long long>(c.states));
  std::fflush(stdout);
}

// The table, as the scripts end, and their sum.
class Table : public testing::Environment {
 public:
  static void add(const char* name, const Coverage& c) {
    if (total_.operations == 0) std::printf("  %-24s %10s %10s %10s\n", "script", "operations", "outcomes", "states");
    print(name, c);
    total_.operations += c.operations;
    total_.outcomes += c.outcomes;
    total_.states += c.states;
  }
  void TearDown() override {
    if (total_.operations > 0) print("all", total_);
  }

 private:
  static inline Coverage total_;
};
[[maybe_unused]] const auto* const kTable = testing::AddGlobalTestEnvironment(new Table);

struct Run {
  Depth depth;
  Script script;
};

class CrashEveryIo : public testing::TestWithParam<Run> {};

TEST_P(CrashEveryIo, LeavesWhatWasPromised) {
  const auto& [depth, script] = GetParam();
  const Coverage covered = crash_at_every_operation(script, depth);
  Table::add(script.name, covered);
  EXPECT_GE(covered.operations, script.least_operations);
  EXPECT_GE(covered.states, depth.share == 1 ? script.least_states : 1);
}

std::vector<Run> runs(const Depth& depth) {
  std::vector<Run> all;
  for (const Script& script : kScripts) all.push_back({depth, script});
  return all;
}

std::string name_of(const testing::TestParamInfo<Run>& run) {
  std::string name(run.param.script.name);
  std::erase_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
  return name;
}

void PrintTo(const Run& run, std::ostream* out) { *out << run.script.name; }

INSTANTIATE_TEST_SUITE_P(Short, CrashEveryIo, testing::ValuesIn(runs({.share = 60})), name_of);
INSTANTIATE_TEST_SUITE_P(Complete, CrashEveryIo, testing::ValuesIn(runs({})), name_of);
INSTANTIATE_TEST_SUITE_P(Soak, CrashEveryIo, testing::ValuesIn(runs({.every_sector = true})), name_of);

class RecoveryAgainAndAgain : public testing::TestWithParam<std::uint64_t> {};

TEST_P(RecoveryAgainAndAgain, GetsThroughAtLast) {
  const std::uint64_t rounds = GetParam();
  const Coverage covered = cut_recovery_again_and_again(kScripts[std::size(kScripts) - 1], rounds);
  Table::add("recovery, again & again", covered);
  EXPECT_EQ(covered.states, rounds);
  EXPECT_GT(covered.operations, 3 * rounds);
}

INSTANTIATE_TEST_SUITE_P(Short, RecoveryAgainAndAgain, testing::Values(3));
INSTANTIATE_TEST_SUITE_P(Complete, RecoveryAgainAndAgain, testing::Values(100));
INSTANTIATE_TEST_SUITE_P(Soak, RecoveryAgainAndAgain, testing::Values(5000));

}  // namespace
}  // namespace kelda::engine
