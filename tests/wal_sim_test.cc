// Whole histories under the simulated runtime: three cores whose steps interleave by seed, a slow disk, more pages than
// memory, and a power cut somewhere. The same seed replays the same history.
#include <array>

#include "common/prng.h"
#include "runtime/core_sim.h"
#include "wal_harness.h"

namespace kelda::wal {
namespace {

using blockdev::MemoryDevice;
using blockdev::Survival;

constexpr std::uint64_t kPages = 300;  // the pool has 256 frames
constexpr std::uint32_t kFibers = 9, kCores = 3;
constexpr DbOptions kOptions{.frames = 256};

struct History {
  std::array<std::int64_t, kFibers> acknowledged{};
};

Slot own_slot(std::uint32_t fiber) { return {PageId{1 + fiber}, 5}; }

// Moves money between two pages and counts itself; sums to zero whatever survives.
Result<bool> transfer(Db& db, Prng& prng, std::uint32_t fiber) {
  TxnLog txn;
  db.log->begin(txn);
  const auto amount = static_cast<std::int64_t>(prng.between(1, 100));
  TRY(db.pages->add(txn, {PageId{1 + prng.below(kPages)}, 100}, amount));
  if (prng.one_in(8)) runtime::Core::current().sleep_until(runtime::now_ns() + prng.below(2'000'000));
  TRY(db.pages->add(txn, own_slot(fiber), 1, 1));
  TRY(db.pages->add(txn, {PageId{1 + prng.below(kPages)}, 100}, -amount));
  if (prng.one_in(5)) {
    TRY(db.pages->roll_back(txn));
    return false;
  }
  TRY(db.pages->commit_durably(txn));
  return true;
}

void traffic(Db& db, std::uint64_t seed, std::uint32_t fiber, std::uint64_t rounds, History& history) {
  Prng prng(seed * 1000 + fiber);
  for (std::uint64_t i = 0; i < rounds; ++i) {
    const auto done = transfer(db, prng, fiber);
    if (!done) return;
    history.acknowledged[fiber] += *done;
    if (prng.one_in(20) && !db.pages->noise(PageId{1 + prng.below(kPages)}, 60 << 10)) return;
    if (prng.one_in(60) && !db.log->checkpoint()) return;
  }
}

void run_all(runtime::Runtime& runtime, Db& db, std::uint64_t seed, std::uint64_t rounds, History& history) {
  runtime::Completion all;
  all.add(kFibers + 1);
  EXPECT_TRUE(runtime.core(0).spawn_remote([&] { db.log->checkpoint_loop(); all.done(); }));
  runtime::Completion traffic_done;
  traffic_done.add(kFibers);
  for (std::uint32_t f = 0; f < kFibers; ++f) {
    EXPECT_TRUE(runtime.core(f % kCores).spawn_remote([&, f] {
      traffic(db, seed, f, rounds, history);
      traffic_done.done();
      all.done();
    }));
  }
  traffic_done.wait();
  db.log->stop();
  all.wait();
}

void check(Db& db, const History& history, bool cut) {
  std::int64_t sum = 0, keys = 0;
  for (std::uint64_t p = 1; p <= kPages; ++p) sum += db.pages->get({PageId{p}, 100}).value_or(1'000'000);
  EXPECT_EQ(sum, 0) << "half of a transfer";
  for (std::uint32_t f = 0; f < kFibers; ++f) {
    const std::int64_t there = db.pages->get(own_slot(f)).value_or(-1);
    EXPECT_GE(there, history.acknowledged[f]) << "fiber " << f;
    EXPECT_LE(there, history.acknowledged[f] + cut) << "fiber " << f;
    keys += there;
  }
  EXPECT_EQ(db.log->count_of(kTree), keys);
}

// Disks with their pages formatted and a checkpoint: on one the ring soon goes round, on the other each core has a buffer.
MemoryDevice& prepared_disk(bool wide) {
  static const auto prepare = [](std::uint64_t log_bytes) {
    auto device = new_disk({.size_bytes = 32_MiB}, log_bytes);
    auto db = Db::open(*device, kOptions);
    EXPECT_TRUE(db.has_value());
    for (std::uint64_t p = 1; p <= kPages; ++p) EXPECT_TRUE((*db)->pages->format(PageId{p}).has_value());
    EXPECT_TRUE((*db)->log->checkpoint().has_value());
    return power_cut(*device, Survival::kNone);
  };
  static const auto small = prepare(kSmallRing), large = prepare(kWideRing);
  return wide ? *large : *small;
}

void one_history(std::uint64_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  Prng prng(seed);
  auto disk = power_cut(prepared_disk(seed % 2 == 0), Survival::kAll);
  const std::uint64_t cut = prng.between(20, 1500);
  disk->set_plan({.seed = seed, .delay_min_ns = 1'000, .delay_max_ns = prng.between(10'000, 500'000), .crash_after_ops = cut});
  const auto ran = runtime::run_simulated(
      {.seed = seed, .core_count = kCores, .stray_unparks = true, .max_steps = 20'000'000}, [&](runtime::Runtime& runtime) {
        History history;
        {
          auto db = Db::open(*disk, kOptions);
          if (db) run_all(runtime, **db, seed, 40, history);
        }
        const bool was_cut = disk->dead();
        disk = power_cut(*disk, prng.one_in(2) ? Survival::kRandom : Survival::kNone, seed);
        // Some recoveries are cut, too.
        if (prng.one_in(2)) {
          disk->set_plan({.crash_after_ops = prng.between(1, 200)});
          (void)Db::open(*disk, kOptions);
          disk = power_cut(*disk, Survival::kRandom, seed + 1);
        }
        auto db = Db::open(*disk, kOptions);
        EXPECT_TRUE(db.has_value()) << db.error().to_string();
        if (db) check(**db, history, was_cut);
        return 0;
      });
  EXPECT_TRUE(ran.has_value()) << ran.error().to_string();
}

TEST(WalSim, AnyHistoryKeepsWhatWasAcknowledgedAndNoHalves) {
  (void)prepared_disk(true);  // outside the simulation
  for (std::uint64_t seed = 1; seed <= 25; ++seed) {
    one_history(seed);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace kelda::wal
