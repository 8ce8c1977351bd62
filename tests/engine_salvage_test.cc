// What a dump of a damaged disk says: nothing that was not so, and a name for everything that it leaves out.
#include <map>
#include <set>

#include "btree/node_layout.h"
#include "btree/overflow.h"
#include "common/prng.h"
#include "disk/superblock.h"
#include "engine/salvage.h"
#include "engine_support.h"
#include "support/rounds.h"

namespace kelda::engine {
namespace {

constexpr auto kNoProgress = [](std::uint64_t, std::uint64_t) {};
using Pairs = std::map<std::string, std::string>;
using Trees = std::map<std::string, Pairs>;

class Collector final : public SalvageSink {
 public:
  bool wants(const SalvagedTree&, std::string&) override { return true; }
  Result<> pair(const SalvagedTree& tree, std::string_view key, std::string_view value, bool certain) override {
    EXPECT_TRUE(trees[tree.name].emplace(key, value).second) << "twice: " << key;
    if (!certain) ++uncertain;
    return {};
  }
  Trees trees;
  int uncertain = 0;
};

struct Dumped {
  Trees trees;
  SalvageReport report;
  std::string text() const {
    std::string text = report.log_damage;
    for (const Skipped& what : report.skipped) text += "\n" + what.tree + " [" + what.range.from + "," + what.range.to + "): " + what.reason;
    return text;
  }
};

Result<Dumped> salvage(blockdev::MemoryDevice& disk, SalvageOptions options = {}) {
  options.memory_bytes = 24_MiB;
  Collector collector;
  Dumped out;
  const std::uint64_t before = disk.stats().writes;
  out.report = TRY(salvage_disk(disk.crash(blockdev::Survival::kAll), options, collector, kNoProgress));
  EXPECT_EQ(disk.stats().writes, before);
  EXPECT_EQ(collector.uncertain > 0, out.report.uncertain_keys > 0);
  out.trees = std::move(collector.trees);
  return out;
}

std::string key_of(int i) {
  char text[48];
  std::snprintf(text, sizeof text, "a rather long common beginning %06d", i);
  return text;
}
std::string value_of(int i) { return i % 97 == 0 ? std::string(5000 + i % 3000, static_cast<char>('a' + i % 26)) : "value " + std::to_string(i) + std::string(100, '.'); }

// A disk with a deep tree, a shallow one and an empty one, closed cleanly.
struct Filled {
  static constexpr int kKeys = 8000;
  std::unique_ptr<blockdev::MemoryDevice> disk;
  disk::Layout where;
  Trees model;

  Filled() {
    auto opened = open_on(blank_disk());
    EXPECT_OK(opened);
    Database& db = *opened->db;
    fill(db, "t", kKeys);
    fill(db, "u", 30);
    EXPECT_OK(db.tree("empty", true));
    EXPECT_OK(db.close());
    disk = opened->disk->crash(blockdev::Survival::kAll);
    where = disk::Superblock::read(*disk)->layout();
  }

  void fill(Database& db, const std::string& name, int keys) {
    const Tree tree = *db.tree(name, true);
    for (int first = 0; first < keys; first += 100) {
      auto txn = db.begin();
      for (int i = first; i < std::min(first + 100, keys); ++i) {
        EXPECT_OK(txn->put(tree, key_of(i), value_of(i)));
        model[name][key_of(i)] = value_of(i);
      }
      EXPECT_OK(txn->commit());
    }
    for (int i = 3; i < keys; i += 7) {  // merges leave freed leaves behind
      if (i % 1000 > 300) continue;
      EXPECT_TRUE(*db.remove(tree, key_of(i)));
      model[name].erase(key_of(i));
    }
    for (int i = keys / 2; i < keys / 2 + keys / 10; ++i) {
      if (model[name].erase(key_of(i)) != 0) {
        EXPECT_TRUE(*db.remove(tree, key_of(i)));
      }
    }
  }

  // The copies of the last batches of pages, which would heal what the test breaks.
  void forget_copies() {
    const std::vector<std::byte> zeroes(where.double_write_bytes);
    disk->poke(where.double_write_offset, zeroes);
  }
  std::vector<std::byte> page(PageId id) {
    std::vector<std::byte> bytes(kPageBytes);
    disk->peek(where.offset_of(id), bytes);
    return bytes;
  }
  void flip(PageId id) { disk->flip_bit(where.offset_of(id) + 2000, 3); }

  // The root of a tree of the model, by its fences; levels of its nodes that are in use are not told apart from old ones.
  std::vector<PageId> nodes(bool (*wanted)(btree::NodeView)) {
    std::vector<PageId> found;
    std::vector<std::byte> map(kPageBytes), bytes(kPageBytes);
    disk->peek(where.offset_of(PageId{0}), map);
    for (std::uint64_t p = 1; p < std::min<std::uint64_t>(where.page_count, 4000); ++p) {
      disk->peek(where.offset_of(PageId{p}), bytes);
      const btree::NodeView node(bytes.data());
      const bool used = (std::to_integer<unsigned>(map[64 + p / 8]) >> p % 8 & 1) != 0;
      if (used && node.is_node() && node.tree().value > 1 && node.tree().value < 100 && wanted(node)) found.push_back(PageId{p});
    }
    return found;
  }
};

// Every key that is missing lies in a range that was named.
void expect_true_and_named(const Dumped& dumped, const Trees& model) {
  for (const auto& [name, pairs] : dumped.trees) {
    const auto found = model.find(name);
    ASSERT_NE(found, model.end()) << name;
    for (const auto& [key, value] : pairs) {
      const auto real = found->second.find(key);
      ASSERT_NE(real, found->second.end()) << "invented: " << name << " " << key;
      ASSERT_EQ(real->second, value) << "wrong: " << name << " " << key;
    }
  }
  for (const auto& [name, pairs] : model) {
    for (const auto& [key, value] : pairs) {
      const auto tree = dumped.trees.find(name);
      if (tree != dumped.trees.end() && tree->second.contains(key)) continue;
      const bool named = std::ranges::any_of(dumped.report.skipped, [&](const Skipped& what) {
        const bool whole = what.tree == "(catalog)" || what.tree.empty();
        return whole || (what.tree == name && key >= what.range.from && (what.range.to.empty() || key < what.range.to));
      });
      ASSERT_TRUE(named) << "missing and not named: " << name << " " << key << dumped.text();
    }
  }
}

TEST(EngineSalvage, ASoundDiskGivesEverything) {
  on_cores(1, [](runtime::Runtime&) {
    Filled filled;
    const auto dumped = salvage(*filled.disk);
    ASSERT_OK(dumped);
    EXPECT_TRUE(dumped->report.complete()) << dumped->text();
    EXPECT_EQ(dumped->trees, filled.model);
    for (const auto& tree : dumped->report.trees) EXPECT_EQ(tree.counted_keys, static_cast<std::int64_t>(tree.keys)) << tree.name;
    EXPECT_EQ(dumped->report.trees.size(), 3u);
  });
}

// The log is applied, and what a transaction without a commit did is left out: puts, overwrites, removes, large values.
TEST(EngineSalvage, AfterAPowerCutTheCommittedState) {
  for (const bool checkpoint : {false, true}) {
    on_cores(1, [checkpoint](runtime::Runtime&) {
      Filled filled;
      auto opened = open_on(filled.disk->crash(blockdev::Survival::kAll));
      ASSERT_OK(opened);
      Database& db = *opened->db;
      const Tree tree = *db.tree("t", false);
      for (int i = 1; i < 40; i += 2) {
        ASSERT_OK(db.put(tree, key_of(i * 50), "new " + std::to_string(i)));
        filled.model["t"][key_of(i * 50)] = "new " + std::to_string(i);
      }
      auto loser = db.begin();
      for (int i = 2; i < 60; i += 2) ASSERT_OK(loser->put(tree, key_of(i * 50), std::string(i * 100, 'x')));
      ASSERT_OK(loser->put(tree, key_of(100), "twice"));
      for (int i = 1000; i < 1100; ++i) ASSERT_OK(loser->remove(tree, key_of(i)));
      for (int i = 0; i < 300; ++i) ASSERT_OK(loser->put(tree, "zz" + std::to_string(i), "never"));
      if (checkpoint) ASSERT_OK(db.checkpoint());
      ASSERT_OK(db.put(tree, "last", "1"));
      filled.model["t"]["last"] = "1";
      auto cut = opened->disk->crash(blockdev::Survival::kAll);
      const auto dumped = salvage(*cut);
      ASSERT_OK(dumped);
      EXPECT_TRUE(dumped->report.complete()) << dumped->text();
      EXPECT_EQ(dumped->report.transactions_undone, 1u);
      EXPECT_EQ(dumped->trees, filled.model);
      // The search must leave the same out.
      filled.disk = std::move(cut);
      const auto inner = filled.nodes([](btree::NodeView node) { return node.level() > 0; });
      ASSERT_GT(inner.size(), 1u);
      for (const PageId page : inner) filled.flip(page);
      const auto searched = salvage(*filled.disk);
      ASSERT_OK(searched);
      expect_true_and_named(*searched, filled.model);
    });
  }
}

TEST(EngineSalvage, OneSuperblockCopyIsEnoughAndNoneIsSaid) {
  on_cores(1, [](runtime::Runtime&) {
    for (const int copies : {1, 2, 3}) {
      Filled filled;
      for (int copy = 0; copy < 2; ++copy) {
        if ((copies >> copy & 1) != 0) filled.disk->flip_bit(disk::kSuperblockCopyOffsets[copy] + 200, 1);
      }
      const auto dumped = salvage(*filled.disk);
      if (copies == 3) {
        ASSERT_TRUE(dumped.failed_with(Code::kCorrupt));
        EXPECT_NE(dumped.error().message().find("both copies of the superblock"), std::string::npos);
      } else {
        ASSERT_OK(dumped);
        EXPECT_EQ(dumped->report.superblock_copies, 1u);
        EXPECT_EQ(dumped->trees, filled.model) << dumped->text();
        EXPECT_TRUE(dumped->report.complete()) << dumped->text();
      }
    }
  });
}

TEST(EngineSalvage, LostInnerNodesLoseNothing) {
  on_cores(1, [](runtime::Runtime&) {
    Filled filled;
    filled.forget_copies();
    const auto inner = filled.nodes([](btree::NodeView node) { return node.level() > 0; });
    ASSERT_GT(inner.size(), 2u);
    for (const PageId page : inner) filled.flip(page);
    const auto dumped = salvage(*filled.disk);
    ASSERT_OK(dumped);
    EXPECT_EQ(dumped->trees, filled.model);
    EXPECT_TRUE(dumped->report.complete()) << dumped->text();
    EXPECT_GT(dumped->report.pages_searched, 0u);
    EXPECT_GT(dumped->report.bad_pages, 0u);
  });
}

TEST(EngineSalvage, ALostLeafIsNamedWithItsKeys) {
  on_cores(1, [](runtime::Runtime&) {
    Filled filled;
    filled.forget_copies();
    const auto leaves = filled.nodes([](btree::NodeView node) { return node.is_leaf() && node.count() > 5 && !node.lower().empty(); });
    const PageId lost = leaves[leaves.size() / 2];
    const auto bytes = filled.page(lost);
    const btree::NodeView node(bytes.data());
    filled.flip(lost);
    const auto dumped = salvage(*filled.disk);
    ASSERT_OK(dumped);
    expect_true_and_named(*dumped, filled.model);
    ASSERT_EQ(dumped->report.skipped_count, 1u) << dumped->text();
    const Skipped& what = dumped->report.skipped[0];
    EXPECT_EQ(what.page, lost);
    EXPECT_EQ(what.range.from, as_view(node.lower()));
    EXPECT_EQ(what.range.to, as_view(node.upper()));
    EXPECT_NE(what.reason.find("checksum"), std::string::npos) << what.reason;
    EXPECT_EQ(dumped->trees.at("t").size(), filled.model.at("t").size() - node.count());
    EXPECT_EQ(dumped->report.pages_searched, 0u) << "nothing could be found";
  });
}

TEST(EngineSalvage, ALostOverflowPageTakesOneKey) {
  on_cores(1, [](runtime::Runtime&) {
    Filled filled;
    filled.forget_copies();
    std::vector<std::byte> bytes(kPageBytes);
    for (std::uint64_t p = 8; p < 2000; ++p) {
      filled.disk->peek(filled.where.offset_of(PageId{p}), bytes);
      if (disk::header_of(bytes.data()).type != static_cast<std::uint8_t>(disk::PageType::kOverflowData)) continue;
      filled.flip(PageId{p});
      break;
    }
    const auto dumped = salvage(*filled.disk);
    ASSERT_OK(dumped);
    expect_true_and_named(*dumped, filled.model);
    EXPECT_EQ(dumped->report.skipped_count, 1u) << dumped->text();
    EXPECT_EQ(dumped->report.skipped_keys, 1u);
  });
}

TEST(EngineSalvage, WithoutASpaceMapOldLeavesAreNotTakenForNewOnes) {
  on_cores(1, [](runtime::Runtime&) {
    Filled filled;
    filled.forget_copies();
    filled.disk->flip_bit(filled.where.offset_of(PageId{0}) + 300, 2);
    const auto map_only = salvage(*filled.disk);
    ASSERT_OK(map_only);
    EXPECT_EQ(map_only->trees, filled.model) << "the way from the root needs no map";
    for (const PageId page : filled.nodes([](btree::NodeView node) { return node.level() > 0; })) filled.flip(page);
    const auto both = salvage(*filled.disk);
    ASSERT_OK(both);
    expect_true_and_named(*both, filled.model);
    EXPECT_GT(both->report.skipped_keys, 6000u);
    const auto uncertain = salvage(*filled.disk, {.include_uncertain = true});
    ASSERT_OK(uncertain);
    EXPECT_GT(uncertain->report.uncertain_keys, 6000u);
    EXPECT_EQ(uncertain->trees.at("t"), filled.model.at("t")) << "nothing is lost, so the newest leaf is the right one everywhere";
  });
}

TEST(EngineSalvage, ALostCatalogLeavesTreesWithoutNames) {
  on_cores(1, [](runtime::Runtime&) {
    Filled filled;
    filled.forget_copies();
    filled.flip(PageId{1});
    const auto dumped = salvage(*filled.disk);
    ASSERT_OK(dumped);
    EXPECT_FALSE(dumped->report.complete());
    Trees by_id;
    std::map<std::uint64_t, std::string> names;
    for (const auto& tree : dumped->report.trees) {
      EXPECT_FALSE(tree.named);
      names[tree.id.value] = tree.keys > 100 ? "t" : tree.keys > 0 ? "u" : "empty";
    }
    EXPECT_EQ(dumped->report.trees.size(), 3u);
    const auto named = salvage(*filled.disk, {.names = names});
    ASSERT_OK(named);
    EXPECT_EQ(named->trees, filled.model);
    EXPECT_FALSE(named->report.complete()) << "there may have been other trees";
  });
}

// A history of commits, and which state of it a dump may be.
struct History {
  std::vector<Trees> states{1};

  Result<> run(Database& db, Prng& prng, int commits) {
    for (int i = 0; i < commits; ++i) {
      Trees next = states.back();
      const Tree tree = TRY(db.tree("h", true));
      auto txn = db.begin();
      for (std::uint64_t k = prng.between(1, 8); k > 0; --k) {
        const std::string key = key_of(static_cast<int>(prng.below(600)));
        if (prng.one_in(4)) {
          TRY(txn->remove(tree, key));
          next["h"].erase(key);
        } else {
          const std::string value = std::to_string(i) + std::string(prng.one_in(10) ? 6000 : prng.between(50, 300), 'v');
          TRY(txn->put(tree, key, value));
          next["h"][key] = value;
        }
      }
      TRY(txn->commit());
      states.push_back(std::move(next));
      if (prng.one_in(60)) TRY(db.checkpoint());
    }
    return {};
  }

  bool matches(const Dumped& dumped, const Trees& state) const {
    static const Pairs kNone;
    const auto there = state.find("h");
    const Pairs& real = there == state.end() ? kNone : there->second;
    const auto got_tree = dumped.trees.find("h");
    const Pairs& got = got_tree == dumped.trees.end() ? kNone : got_tree->second;
    for (const auto& [key, value] : got) {
      const auto found = real.find(key);
      if (found == real.end() || found->second != value) return false;
    }
    for (const auto& [key, value] : real) {
      if (got.contains(key)) continue;
      const bool named = std::ranges::any_of(dumped.report.skipped, [&](const Skipped& what) {
        return what.tree == "(catalog)" || (what.tree == "h" && key >= what.range.from && (what.range.to.empty() || key < what.range.to));
      });
      if (!named) return false;
    }
    return true;
  }
  // Newest first; -1: none.
  int state_of(const Dumped& dumped) const {
    for (int i = static_cast<int>(states.size()) - 1; i >= 0; --i) {
      if (matches(dumped, states[i])) return i;
    }
    return -1;
  }
};

// Damage in the middle of the log: the dump is one earlier state, whole, but for what is named.
TEST(EngineSalvage, ADamagedLogGivesAnEarlierState) {
  int earlier = 0;
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    on_cores(1, [&](runtime::Runtime&) {
      Prng prng(seed);
      auto opened = open_on(blank_disk(32_MiB));
      ASSERT_OK(opened);
      History history;
      ASSERT_OK(history.run(*opened->db, prng, 200));
      auto cut = opened->disk->crash(blockdev::Survival::kAll);
      const auto superblock = disk::Superblock::read(*cut);
      ASSERT_OK(superblock);
      const std::uint64_t at = superblock->checkpoint().log_position + prng.between(8, 40) * kPageBytes;
      cut->flip_bit(superblock->layout().log_offset + at % superblock->layout().log_bytes + 150, 4);
      const auto dumped = salvage(*cut);
      ASSERT_OK(dumped);
      const int state = history.state_of(*dumped);
      EXPECT_GE(state, 0) << "seed " << seed << ": no state that ever was" << dumped->text();
      if (!dumped->report.log_damage.empty()) ++earlier;
      if (dumped->report.log_damage.empty()) {
        EXPECT_EQ(state, 200) << "seed " << seed << dumped->text();
      }
    });
  }
  EXPECT_GT(earlier, 4) << "the damage never met the log's live part";
}

void damage(blockdev::MemoryDevice& disk, const disk::Layout& where, Prng& prng) {
  const std::uint64_t used_end = where.pages_offset + 1200 * kPageBytes;
  std::vector<std::byte> block(prng.one_in(2) ? 512 : kPageBytes);
  const auto place = [&] {
    const std::uint64_t begin = prng.one_in(3) ? 0 : where.pages_offset;
    return round_down(begin + prng.below(used_end - begin), block.size());
  };
  const std::uint64_t at = place();
  switch (prng.below(4)) {
    case 0: disk.flip_bit(at + prng.below(block.size()), static_cast<unsigned>(prng.below(8))); return;
    case 1: break;  // zeroes
    case 2:
      for (std::byte& byte : block) byte = static_cast<std::byte>(prng.next());
      break;
    default: disk.peek(place(), block);  // another block: a misdirected write
  }
  disk.poke(at, block);
}

TEST(EngineSalvage, RandomDamageNeverGivesAWrongValue) {
  on_cores(1, [](runtime::Runtime&) {
    Filled filled;
    filled.forget_copies();
    const std::uint64_t rounds = test_rounds(150);
    std::uint64_t incomplete = 0, refused = 0;
    for (std::uint64_t seed = 1; seed <= rounds; ++seed) {
      SCOPED_TRACE("seed " + std::to_string(seed));
      Prng prng(seed);
      auto damaged = filled.disk->crash(blockdev::Survival::kAll);
      for (std::uint64_t n = prng.between(1, seed % 10 == 0 ? 300 : 12); n > 0; --n) damage(*damaged, filled.where, prng);
      const auto dumped = salvage(*damaged, {.max_listed = 100'000});
      if (!dumped) {
        EXPECT_TRUE(dumped.failed_with(Code::kCorrupt) || dumped.failed_with(Code::kForeignDisk)) << dumped.error().to_string();
        ++refused;
        continue;
      }
      if (!dumped->report.complete()) ++incomplete;
      Trees found = dumped->trees;
      std::erase_if(found, [](const auto& tree) { return tree.first.starts_with('('); });  // nameless: see the catalog's test
      const Dumped named{found, dumped->report};
      expect_true_and_named(named, filled.model);
      if (testing::Test::HasFatalFailure()) return;
    }
    EXPECT_GT(incomplete, rounds / 3);
    EXPECT_LT(refused, rounds * 20 / 150);
  });
}

// The same on disks that were not closed: what is dumped is one state of the history.
TEST(EngineSalvage, RandomDamageAfterAPowerCutGivesOneState) {
  for (std::uint64_t round = 1; round <= 5; ++round) {
    on_cores(1, [&](runtime::Runtime&) {
      Prng prng(round * 1000);
      auto opened = open_on(blank_disk(32_MiB));
      ASSERT_OK(opened);
      History history;
      ASSERT_OK(history.run(*opened->db, prng, 150));
      auto cut = opened->disk->crash(blockdev::Survival::kAll);
      const auto where = disk::Superblock::read(*cut)->layout();
      for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        Prng damages(round * 1000 + seed);
        auto damaged = cut->crash(blockdev::Survival::kAll);
        for (std::uint64_t n = damages.between(1, 6); n > 0; --n) damage(*damaged, where, damages);
        auto dumped = salvage(*damaged, {.max_listed = 100'000});
        if (!dumped) continue;
        std::erase_if(dumped->trees, [](const auto& tree) { return tree.first.starts_with('('); });
        ASSERT_GE(history.state_of(*dumped), 0) << "round " << round << ", seed " << seed << dumped->text();
      }
    });
  }
}

}  // namespace
}  // namespace kelda::engine
