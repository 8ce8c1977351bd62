// The scrubber: finds what is wrong on the disk under an open database, says which page, repairs what it can, keeps its
// rate, and never cries wolf under load.
#include <map>

#include "btree/node_layout.h"
#include "bufferpool/page_map_sim.h"
#include "common/prng.h"
#include "disk/superblock.h"
#include "engine/check.h"
#include "engine/database_impl.h"
#include "engine_support.h"
#include "runtime/core_sim.h"

namespace kelda::engine {
namespace {

using blockdev::Fault;
using blockdev::Op;

constexpr runtime::TimeNs kSecondNs = 1'000'000'000;

std::string key_of(int i) { return "key" + std::to_string(100'000 + i); }

// A database with some hundred pages, everything written back; what the scrubber says is in `told`.
struct Scrubbed {
  explicit Scrubbed(std::uint64_t bytes_per_s = 1ull << 40) {
    DatabaseOptions options = small_options();
    options.scrub = {.bytes_per_s = bytes_per_s, .report = [this](const std::string& text) { told.push_back(text); }};
    auto opened = open_on(blank_disk(), options);
    EXPECT_OK(opened);
    disk = opened->disk;
    db = std::move(opened->db);
    tree = *db->tree("t", true);
    for (int first = 0; first < 4000; first += 200) {
      auto txn = db->begin();
      for (int i = first; i < first + 200; ++i) EXPECT_OK(txn->put(tree, key_of(i), std::string(i % 50 == 0 ? 9000 : 200, 'v')));
      EXPECT_OK(txn->commit());
    }
    EXPECT_OK(db->checkpoint());
    layout = disk::Superblock::read(*disk)->layout();
  }
  DatabaseImpl& impl() { return static_cast<DatabaseImpl&>(*db); }

  // Runs one scrub to its end.
  ScrubStatus scrub() {
    const auto runs = db->scrub_status().runs;
    EXPECT_OK(db->start_scrub());
    return wait_after(runs);
  }
  ScrubStatus wait_after(std::uint64_t runs) {
    for (;;) {
      const ScrubStatus status = db->scrub_status();
      if (status.runs > runs && !status.running) return status;
      runtime::Core::current().sleep_until(runtime::now_ns() + 5'000'000);
    }
  }
  // A leaf of the tree in the middle.
  PageId leaf() {
    std::vector<std::byte> bytes(kPageBytes);
    for (std::uint64_t p = 60; p < 1000; ++p) {
      disk->peek(layout.offset_of(PageId{p}), bytes);
      const btree::NodeView node(bytes.data());
      if (node.is_node() && node.is_leaf() && node.tree() == tree.id() && node.count() > 3) return PageId{p};
    }
    ADD_FAILURE() << "no leaf";
    return PageId{1};
  }
  void flip(PageId page) { disk->flip_bit(layout.offset_of(page) + 2000, 5); }
  // Out of memory, as it would be after a while.
  void evict(PageId page) {
    const std::string value(3000, 'x');
    std::uint64_t version;
    for (int i = 0; impl().pool().optimistic_begin(page, version); ++i) {
      ASSERT_LT(i, 40'000);
      ASSERT_OK(db->put(tree, "zz" + std::to_string(i % 8000), value));
    }
    ASSERT_OK(db->checkpoint());
  }

  std::vector<std::string> told;
  blockdev::MemoryDevice* disk = nullptr;
  std::unique_ptr<Database> db;
  Tree tree;
  disk::Layout layout;
};

TEST(EngineScrub, ASoundDiskIsSaidToBe) {
  on_cores(1, [](runtime::Runtime&) {
    Scrubbed s;
    const ScrubStatus status = s.scrub();
    EXPECT_EQ(status.errors, 0u) << status.last_error;
    EXPECT_TRUE(status.last_run_complete);
    EXPECT_EQ(status.pages_unsettled, 0u);
    EXPECT_LE(status.pages_checked, status.pages_total);
    EXPECT_GE(status.pages_checked + 8, status.pages_total);  // fixed roots count as used before they are
    EXPECT_GT(status.pages_checked, 400u);
    EXPECT_TRUE(s.told.empty());
    EXPECT_OK(s.db->close());
  });
}

TEST(EngineScrub, ACleanPageThatRottedIsRepairedFromMemory) {
  on_cores(1, [](runtime::Runtime&) {
    Scrubbed s;
    const PageId page = s.leaf();
    s.flip(page);
    const ScrubStatus status = s.scrub();
    EXPECT_EQ(status.errors, 1u);
    EXPECT_EQ(status.repaired, 1u);
    EXPECT_EQ(status.last_error_page, static_cast<std::int64_t>(page.value));
    ASSERT_EQ(s.told.size(), 1u);
    EXPECT_NE(s.told[0].find("page " + std::to_string(page.value) + ": "), std::string::npos) << s.told[0];
    EXPECT_EQ(s.scrub().errors, 0u);
    ASSERT_OK(s.db->close());
    const auto checked = check_disk(s.disk->crash(blockdev::Survival::kAll), {.memory_bytes = 24_MiB}, [](std::uint64_t, std::uint64_t) {});
    ASSERT_OK(checked);
    EXPECT_TRUE(checked->sound());
  });
}

TEST(EngineScrub, WhatIsNotInMemoryIsReportedOnceAndLeftAlone) {
  on_cores(1, [](runtime::Runtime&) {
    Scrubbed s;
    const PageId page = s.leaf();
    s.evict(page);
    s.flip(page);
    std::vector<std::byte> before(kPageBytes), after(kPageBytes);
    s.disk->peek(s.layout.offset_of(page), before);
    for (int run = 0; run < 2; ++run) {
      const ScrubStatus status = s.scrub();
      EXPECT_EQ(status.errors, 1u);
      EXPECT_EQ(status.repaired, 0u);
      EXPECT_EQ(status.last_error_page, static_cast<std::int64_t>(page.value));
    }
    EXPECT_EQ(s.db->scrub_status().total_errors, 2u);
    EXPECT_EQ(s.told.size(), 1u) << "the same again";
    s.disk->peek(s.layout.offset_of(page), after);
    EXPECT_EQ(before, after);
  });
}

// The old page is intact and in its place: only memory knows better.
TEST(EngineScrub, AWriteThatWasAcknowledgedAndNotMade) {
  on_cores(1, [](runtime::Runtime&) {
    Scrubbed s;
    const PageId page = s.leaf();
    std::vector<std::byte> bytes(kPageBytes);
    s.disk->peek(s.layout.offset_of(page), bytes);
    const btree::NodeView node(bytes.data());
    const std::string key = std::string(as_view(node.prefix())) + std::string(as_view(node.suffix(1)));
    const std::uint64_t at = s.layout.offset_of(page);
    s.disk->set_plan({.rules = {{.fault = Fault::kPhantom, .op = Op::kWrite, .from_bytes = at, .to_bytes = at + 1}}});
    ASSERT_OK(s.db->put(s.tree, key, "newer"));
    ASSERT_OK(s.db->checkpoint());
    ASSERT_EQ(s.disk->faults_hit(), 1u);
    const ScrubStatus status = s.scrub();
    EXPECT_EQ(status.errors, 1u);
    EXPECT_EQ(status.repaired, 1u);
    ASSERT_EQ(s.told.size(), 1u);
    EXPECT_NE(s.told[0].find("an older version is in its place"), std::string::npos) << s.told[0];
  });
}

TEST(EngineScrub, AnUnreadablePage) {
  on_cores(1, [](runtime::Runtime&) {
    Scrubbed s;
    const PageId page = s.leaf();
    const std::uint64_t at = s.layout.offset_of(page);
    s.disk->set_plan({.rules = {{.fault = Fault::kError, .op = Op::kRead, .from_bytes = at, .to_bytes = at + 1, .count = blockdev::FaultRule::kAlways}}});
    const ScrubStatus status = s.scrub();
    EXPECT_EQ(status.errors, 1u);
    EXPECT_EQ(status.last_error_page, static_cast<std::int64_t>(page.value));
    s.disk->set_plan({});
  });
}

TEST(EngineScrub, SuperblockCopiesAreRepairedByACheckpoint) {
  for (const int copy : {0, 1}) {
    on_cores(1, [copy](runtime::Runtime&) {
      Scrubbed s;
      s.disk->flip_bit(disk::kSuperblockCopyOffsets[copy] + 1000, 2);
      ASSERT_EQ(disk::Superblock::read(*s.disk)->valid_copies(), 1u);
      const ScrubStatus status = s.scrub();
      EXPECT_EQ(status.errors, 1u);
      EXPECT_EQ(status.repaired, 1u);
      EXPECT_EQ(s.told.size(), 1u);
      EXPECT_EQ(disk::Superblock::read(*s.disk)->valid_copies(), 2u);
    });
  }
}

TEST(EngineScrub, ASuperblockThatCannotBeRead) {
  on_cores(1, [](runtime::Runtime&) {
    Scrubbed s;
    s.disk->set_plan({.rules = {{.fault = Fault::kError, .op = Op::kRead, .to_bytes = disk::kSuperblockAreaBytes,
                                 .count = blockdev::FaultRule::kAlways}}});
    const ScrubStatus status = s.scrub();
    EXPECT_EQ(status.errors, 1u);
    EXPECT_EQ(status.repaired, 0u);
    ASSERT_EQ(s.told.size(), 1u);
    EXPECT_NE(s.told[0].find("superblock: "), std::string::npos) << s.told[0];
    s.disk->set_plan({});
    EXPECT_EQ(s.scrub().errors, 0u);
    EXPECT_OK(s.db->close());
  });
}

TEST(EngineScrub, ADamagedLogIsMadeUnneeded) {
  on_cores(1, [](runtime::Runtime&) {
    Scrubbed s;
    for (int i = 0; i < 40; ++i) ASSERT_OK(s.db->put(s.tree, "later" + std::to_string(i), "x"));
    const auto superblock = disk::Superblock::read(*s.disk);
    const std::uint64_t at = superblock->checkpoint().log_position + 20 * kPageBytes;
    s.disk->flip_bit(s.layout.log_offset + at % s.layout.log_bytes + 130, 1);
    const ScrubStatus status = s.scrub();
    EXPECT_EQ(status.errors, 1u);
    EXPECT_EQ(status.repaired, 1u);
    ASSERT_EQ(s.told.size(), 1u);
    EXPECT_NE(s.told[0].find("log: "), std::string::npos);
    auto again = open_on(s.disk->crash(blockdev::Survival::kAll));
    ASSERT_OK(again);
    std::string value;
    EXPECT_TRUE(*again->db->get(*again->db->tree("t", false), "later39", value));
  });
}

TEST(EngineScrub, ADamagedCopyInTheDoubleWriteArea) {
  on_cores(1, [](runtime::Runtime&) {
    Scrubbed s;
    ASSERT_OK(s.db->put(s.tree, "a", "1"));
    ASSERT_OK(s.db->checkpoint());
    s.disk->flip_bit(s.layout.double_write_offset + kPageBytes + 500, 1);  // the first copy in slot 0
    const ScrubStatus status = s.scrub();
    EXPECT_EQ(status.errors, 1u);
    ASSERT_EQ(s.told.size(), 1u);
    EXPECT_NE(s.told[0].find("double-write area, slot 0: "), std::string::npos) << s.told[0];
  });
}

TEST(EngineScrub, ItStopsWhenAsked) {
  on_cores(1, [](runtime::Runtime&) {
    Scrubbed s(64 << 10);
    ASSERT_OK(s.db->start_scrub());
    runtime::Core::current().sleep_until(runtime::now_ns() + 50'000'000);
    EXPECT_TRUE(s.db->start_scrub().failed_with(Code::kBusy));
    EXPECT_TRUE(s.db->scrub_status().running);
    s.db->stop_scrub();
    const ScrubStatus status = s.wait_after(0);
    EXPECT_FALSE(status.last_run_complete);
    EXPECT_LT(status.pages_checked, status.pages_total);
    ASSERT_OK(s.db->start_scrub());  // and the database closes under a running one
    EXPECT_OK(s.db->close());
  });
}

struct Load {
  std::uint64_t seed;
  std::uint32_t fibers = 6;
  bool done = false;
};

// Puts, removes, large values, roll-backs, a tree that is dropped; more pages than memory.
void traffic(Database& db, Load& load, std::uint32_t fiber, int rounds) {
  Prng prng(load.seed * 100 + fiber);
  const Tree tree = *db.tree("t", true);
  for (int i = 0; i < rounds; ++i) {
    auto txn = db.begin();
    Result<> done;
    for (int k = 0; k < 6 && done; ++k) {
      const std::string key = std::to_string(prng.below(900)) + "/" + std::to_string(fiber);
      const auto size = prng.one_in(5) ? prng.between(3000, 20'000) : prng.between(10, 900);
      if (prng.one_in(3)) {
        auto removed = txn->remove(tree, key);
        if (!removed) done = removed.error();
      } else {
        auto put = txn->put(tree, key, std::string(size, 'v'));
        if (!put) done = put.error();
      }
    }
    if (!done || prng.one_in(6)) {
      EXPECT_OK(txn->roll_back());
    } else {
      EXPECT_OK(txn->commit());
    }
    if (prng.one_in(30)) EXPECT_OK(db.checkpoint());
  }
}

// Virtual time, a slow disk, many orders: no write is taken for damage.
TEST(EngineScrub, NoFalseAlarmUnderLoad) {
  std::uint64_t unsettled = 0, runs = 0, evictions = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const auto code = runtime::run_simulated({.seed = seed, .core_count = 2}, [&](runtime::Runtime& rt) {
      DatabaseOptions options = small_options();
      options.memory_bytes = 11_MiB;  // a pool of some hundred pages
      options.scrub = {.bytes_per_s = 1ull << 30, .report = [](const std::string& text) { ADD_FAILURE() << text; }};
      auto opened = open_on(blank_disk(64_MiB, {.seed = seed, .delay_min_ns = 1'000, .delay_max_ns = 300'000}), options);
      if (!opened) {
        ADD_FAILURE() << opened.error().to_string();
        return 1;
      }
      Database& db = *opened->db;
      Load load{.seed = seed};
      runtime::Completion writers;
      writers.add(load.fibers);
      for (std::uint32_t f = 0; f < load.fibers; ++f) {
        EXPECT_TRUE(rt.core(f % 2).spawn_remote([&, f] {
          traffic(db, load, f, 100);
          writers.done();
        }));
      }
      EXPECT_TRUE(rt.core(1).spawn_remote([&] {
        while (writers.pending()) {
          (void)db.start_scrub();
          unsettled = std::max(unsettled, db.scrub_status().pages_unsettled);
          runtime::Core::current().sleep_until(runtime::now_ns() + 2'000'000);
        }
      }));
      writers.wait();
      runtime::Core::current().sleep_until(runtime::now_ns() + 10'000'000);
      while (db.scrub_status().running) runtime::Core::current().sleep_until(runtime::now_ns() + 100'000'000);
      const ScrubStatus status = db.scrub_status();
      EXPECT_EQ(status.total_errors, 0u) << status.last_error;
      runs += status.runs;
      evictions += db.stats().pool_evictions;
      EXPECT_OK(db.close());
      return 0;
    });
    ASSERT_TRUE(code.has_value()) << code.error().to_string();
    if (HasFailure()) return;
  }
  EXPECT_GE(runs, 40u);
  EXPECT_GT(evictions, 1000u);
}

// A space map that is not in memory, and cannot be for a while: the scrub waits, and says nothing of the disk.
TEST(EngineScrub, NoFalseAlarmWhenMemoryIsShort) {
  const auto code = runtime::run_simulated({.seed = 1, .core_count = 1}, [](runtime::Runtime&) {
    bufferpool::SimulatedPageMap* page_map = nullptr;
    const auto make_page_map = [&](std::uint64_t, std::uint64_t pages) -> Result<std::unique_ptr<bufferpool::PageMap>> {
      auto map = TRY(bufferpool::SimulatedPageMap::create(pages, false));
      page_map = map.get();
      return std::unique_ptr<bufferpool::PageMap>(std::move(map));
    };
    DatabaseOptions options = small_options();
    options.memory_bytes = 11_MiB;  // a pool of some hundred pages
    options.scrub = {.bytes_per_s = 1ull << 30, .report = [](const std::string& text) { ADD_FAILURE() << text; }};
    OpenReport report;
    auto opened = DatabaseImpl::open(blank_disk(), options, report, DatabaseImpl::Purpose::kServe, make_page_map);
    if (!opened) {
      ADD_FAILURE() << opened.error().to_string();
      return 1;
    }
    DatabaseImpl& db = **opened;
    const Tree tree = *db.tree("t", true);
    constexpr int kCount = 1500;
    for (int i = 0; i < kCount; ++i) EXPECT_OK(db.put(tree, key_of(i), std::string(9000, 'v')));
    for (int i = 0; i < 2; ++i) EXPECT_OK(db.checkpoint());
    std::string value;
    for (int i = 0; i < 2 * kCount; ++i) EXPECT_OK(db.get(tree, key_of(i % kCount), value, nullptr));

    page_map->refuse_maps(~0ull);
    const auto space_map = bufferpool::SharedGuard::take(db.pool(), PageId{0});
    EXPECT_TRUE(space_map.failed_with(Code::kOutOfMemory)) << "the space map is still in memory";
    EXPECT_OK(db.start_scrub());
    runtime::Core::current().sleep_until(runtime::now_ns() + 5 * kSecondNs);
    EXPECT_EQ(db.scrub_status().total_errors, 0u) << db.scrub_status().last_error;
    EXPECT_TRUE(db.scrub_status().running);
    page_map->refuse_maps(0);
    do runtime::Core::current().sleep_until(runtime::now_ns() + kSecondNs);
    while (db.scrub_status().running);
    const ScrubStatus status = db.scrub_status();
    EXPECT_EQ(status.total_errors, 0u) << status.last_error;
    EXPECT_GT(status.pages_checked, 3000u);
    EXPECT_TRUE(status.last_run_complete);
    EXPECT_OK(db.close());
    return 0;
  });
  ASSERT_TRUE(code.has_value()) << code.error().to_string();
}

// The rate holds, in virtual time; traffic or none.
TEST(EngineScrub, TheRateIsHeld) {
  for (const std::uint64_t bytes_per_s : {256ull << 10, 1ull << 20, 8ull << 20}) {
    const auto code = runtime::run_simulated({.seed = bytes_per_s, .core_count = 1}, [&](runtime::Runtime&) {
      Scrubbed s(bytes_per_s);
      const auto before = s.disk->stats().read_bytes;
      const auto start_ns = runtime::now_ns();
      const ScrubStatus status = s.scrub();
      const double seconds = static_cast<double>(runtime::now_ns() - start_ns) / kSecondNs;
      const double bytes = static_cast<double>(s.disk->stats().read_bytes - before);
      EXPECT_EQ(status.errors, 0u) << status.last_error;
      EXPECT_GT(status.pages_checked, 400u);
      EXPECT_LE(bytes, seconds * static_cast<double>(bytes_per_s) + 1_MiB + kPageBytes * Scrubber::kRunPages);
      EXPECT_GE(bytes, seconds * static_cast<double>(bytes_per_s) * 0.5 - 1_MiB) << "it dawdles";
      EXPECT_OK(s.db->close());
      return 0;
    });
    ASSERT_TRUE(code.has_value()) << code.error().to_string();
  }
}

// The interval, in virtual time: five minutes, then every day.
TEST(EngineScrub, ItRunsByItself) {
  const auto code = runtime::run_simulated({.seed = 5, .core_count = 1}, [&](runtime::Runtime&) {
    DatabaseOptions options = small_options();
    options.scrub = {.interval_s = 86'400, .report = {}};
    auto opened = open_on(blank_disk(), options);
    EXPECT_OK(opened);
    const auto start_ns = runtime::now_ns();
    const auto runs_at = [&](std::uint64_t seconds) {
      runtime::Core::current().sleep_until(start_ns + seconds * kSecondNs);
      return opened->db->scrub_status().runs;
    };
    EXPECT_EQ(runs_at(200), 0u);
    EXPECT_EQ(runs_at(400), 1u);
    EXPECT_EQ(runs_at(86'000), 1u);
    EXPECT_EQ(runs_at(87'000), 2u);
    EXPECT_EQ(runs_at(3 * 86'400 + 1000), 4u);
    EXPECT_OK(opened->db->close());
    return 0;
  });
  ASSERT_TRUE(code.has_value()) << code.error().to_string();
}

}  // namespace
}  // namespace kelda::engine
