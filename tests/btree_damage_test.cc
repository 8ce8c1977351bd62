// Nonsense behind valid checksums: it is told, and neither followed nor made worse.
#include <functional>

#include "btree/node_edit.h"
#include "btree/sound_pages.h"
#include "btree/space_map.h"
#include "btree_harness.h"
#include "disk/page_check.h"

namespace kelda::btree {
namespace {

using blockdev::MemoryDevice;

constexpr unsigned kKeys = 2000;

std::string key_of(unsigned i) { return "key" + std::to_string(10'000 + i); }

// A tree of three levels, all of it in the page area.
std::unique_ptr<MemoryDevice> disk_with_tree() {
  auto disk = new_disk();
  auto db = Db::open(*disk);
  EXPECT_TRUE(db.has_value());
  for (unsigned begin = 0; begin < kKeys; begin += 100) {
    Txn txn(**db);
    for (unsigned i = begin; i < begin + 100; ++i) {
      EXPECT_TRUE((*db)->tree().put(txn.txn, as_bytes(key_of(i)), as_bytes(std::string(100, 'v'))).has_value());
    }
    EXPECT_TRUE(txn.commit_durably().has_value());
  }
  EXPECT_TRUE((*db)->log->checkpoint(true).has_value());
  return disk;
}

struct Leaf {
  PageId id;
  alignas(kPageBytes) std::byte page[kPageBytes];
};

// The first leaf in order of pages that is `wanted`.
void find_leaf(MemoryDevice& disk, Leaf& leaf, const std::function<bool(NodeView)>& wanted) {
  const disk::Layout layout = disk::Superblock::read(disk)->layout();
  for (leaf.id = PageId(kFirstFreePage); leaf.id.value < layout.page_count; ++leaf.id.value) {
    disk.peek(layout.offset_of(leaf.id), leaf.page);
    const NodeView node(leaf.page);
    if (!disk::page_verifies(leaf.id, leaf.page, layout.checksum_seed()) || !node.is_node() || !node.is_leaf()) continue;
    if (wanted(node)) return;
  }
  FAIL() << "no such leaf";
}

void find_leaf_of(MemoryDevice& disk, Leaf& leaf, std::string_view key) {
  find_leaf(disk, leaf, [key](NodeView node) { return covers(node, as_bytes(key)); });
}

// Seals it and writes it to its place.
void put_leaf(MemoryDevice& disk, Leaf& leaf) {
  const disk::Layout layout = disk::Superblock::read(disk)->layout();
  disk::stamp_page(leaf.id, leaf.page, layout.checksum_seed());
  disk.poke(layout.offset_of(leaf.id), leaf.page);
}

// Changes the first leaf with a left and a right neighbour.
void change_a_leaf(MemoryDevice& disk, const std::function<void(std::byte*)>& change) {
  Leaf leaf;
  ASSERT_NO_FATAL_FAILURE(
      find_leaf(disk, leaf, [](NodeView node) { return !node.lower().empty() && !node.upper().empty(); }));
  change(leaf.page);
  put_leaf(disk, leaf);
}

Result<unsigned> count_forward(Db& db) {
  BTree tree = db.tree();
  Cursor cursor(tree);
  unsigned count = 0;
  for (bool more = TRY(cursor.seek({})); more; more = TRY(cursor.next())) ++count;
  return count;
}

Result<unsigned> count_backward(Db& db) {
  BTree tree = db.tree();
  Cursor cursor(tree);
  unsigned count = 0;
  for (bool more = TRY(cursor.seek_back({})); more; more = TRY(cursor.prev())) ++count;
  return count;
}

TEST(BtreeDamage, ANodeThatBreaksItsRulesIsRefused) {
  using Change = void (*)(NodeHeader&, std::uint64_t*);
  const Change changes[] = {
      [](NodeHeader& h, std::uint64_t*) { h.count = 0xffff; },
      [](NodeHeader& h, std::uint64_t*) { h.heap_begin = 10; },
      [](NodeHeader& h, std::uint64_t*) { ++h.heap_used; },
      [](NodeHeader& h, std::uint64_t*) { h.lower_bytes = 4000; },
      [](NodeHeader& h, std::uint64_t*) { ++h.prefix_bytes; },
      [](NodeHeader& h, std::uint64_t*) { h.page.owner[kOwnerLevel] = 200; },
      [](NodeHeader&, std::uint64_t* slots) { slots[0] |= 0xffff; },
      [](NodeHeader&, std::uint64_t* slots) { std::swap(slots[0], slots[1]); },
      [](NodeHeader&, std::uint64_t* slots) { slots[1] = slots[0]; },
  };
  const auto sound = disk_with_tree();
  for (std::size_t i = 0; i < std::size(changes); ++i) {
    auto disk = sound->crash(blockdev::Survival::kAll);
    change_a_leaf(*disk, [&](std::byte* page) {
      changes[i](node_header(page), reinterpret_cast<std::uint64_t*>(page + sizeof(NodeHeader)));
    });
    auto db = Db::open(*disk);
    ASSERT_OK(db);
    EXPECT_TRUE(count_forward(**db).failed_with(Code::kCorrupt)) << i;
    EXPECT_TRUE((*db)->check().failed_with(Code::kCorrupt)) << i;
  }
}

// Each node is sound by itself; only together they are not.
TEST(BtreeDamage, FencesThatDisagreeEndScansAndChanges) {
  auto disk = disk_with_tree();
  std::string last, first;
  change_a_leaf(*disk, [&](std::byte* page) {
    const NodeView node(page);
    first = std::string(as_view(node.lower()));
    last = full_key(node, node.count() - 1);
    truncate_node(page, node.count() / 2, as_bytes(full_key(node, node.count() / 2)));
  });
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  EXPECT_TRUE(count_forward(**db).failed_with(Code::kCorrupt));
  EXPECT_TRUE((*db)->check().failed_with(Code::kCorrupt));
  Txn txn(**db);
  EXPECT_TRUE((*db)->tree().put(txn.txn, as_bytes(last + "x"), as_bytes("v")).failed_with(Code::kCorrupt));
  ASSERT_OK(txn.roll_back());

  disk = disk_with_tree();
  change_a_leaf(*disk, [&](std::byte* page) {
    const NodeView node(page);
    alignas(8) std::byte right[kPageBytes] = {};
    build_right(right, node, node.count() / 2, as_bytes(full_key(node, node.count() / 2)), kNoPage);
    std::memcpy(page + offsetof(disk::PageHeader, type), right + offsetof(disk::PageHeader, type),
                kPageBytes - offsetof(disk::PageHeader, type));
  });
  db = Db::open(*disk);
  ASSERT_OK(db);
  EXPECT_TRUE(count_backward(**db).failed_with(Code::kCorrupt));
}

// By whatever leads to the key's leaf.
void expect_refused(Db& db, const std::string& key) {
  BTree tree = db.tree();
  std::string value;
  EXPECT_TRUE(tree.lookup(as_bytes(key), value).failed_with(Code::kCorrupt)) << key << " " << value;
  EXPECT_TRUE(tree.value_length(as_bytes(key)).failed_with(Code::kCorrupt)) << key;
  Cursor cursor(tree);
  EXPECT_TRUE(cursor.seek(as_bytes(key)).failed_with(Code::kCorrupt)) << key;
  EXPECT_TRUE(cursor.seek_back(as_bytes(key)).failed_with(Code::kCorrupt)) << key;
  Txn txn(db);
  EXPECT_TRUE(tree.put(txn.txn, as_bytes(key), as_bytes("v")).failed_with(Code::kCorrupt)) << key;
  EXPECT_TRUE(tree.remove(txn.txn, as_bytes(key)).failed_with(Code::kCorrupt)) << key;
  ASSERT_OK(txn.roll_back());
}

// As when the disk lost the writes since a page was given to another part of the tree, or to another tree: what lies there
// verifies, and is a sound leaf of keys with the same suffixes.
TEST(BtreeDamage, ALeafOfOtherKeysIsNotReadForThese) {
  const auto sound = disk_with_tree();
  for (const unsigned other : {600u, 1500u, 1999u}) {
    for (const bool has_prefix_check : {true, false}) {
      auto disk = sound->crash(blockdev::Survival::kAll);
      Leaf leaf, old;
      ASSERT_NO_FATAL_FAILURE(find_leaf_of(*disk, leaf, key_of(500)));
      ASSERT_NO_FATAL_FAILURE(find_leaf_of(*disk, old, key_of(other)));
      ASSERT_NE(leaf.id, old.id);
      old.id = leaf.id;
      if (!has_prefix_check) node_header(old.page).first_child = 0;
      put_leaf(*disk, old);
      auto db = Db::open(*disk);
      ASSERT_OK(db);
      expect_refused(**db, key_of(500));
      EXPECT_TRUE(count_forward(**db).failed_with(Code::kCorrupt));
      EXPECT_TRUE(count_backward(**db).failed_with(Code::kCorrupt));
    }
  }
  auto disk = sound->crash(blockdev::Survival::kAll);
  Leaf leaf;
  ASSERT_NO_FATAL_FAILURE(find_leaf_of(*disk, leaf, key_of(500)));
  ++node_header(leaf.page).tree;
  put_leaf(*disk, leaf);
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  expect_refused(**db, key_of(500));
}

// It only spares a comparison.
TEST(BtreeDamage, ALeafWithoutPrefixCheckIsRead) {
  auto disk = disk_with_tree();
  Leaf leaf;
  ASSERT_NO_FATAL_FAILURE(find_leaf_of(*disk, leaf, key_of(500)));
  ASSERT_NE(NodeView(leaf.page).prefix_check(), 0u);
  node_header(leaf.page).first_child = 0;
  put_leaf(*disk, leaf);
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  std::string value;
  EXPECT_EQ((*db)->tree().lookup(as_bytes(key_of(500)), value), true);
  EXPECT_EQ(value, std::string(100, 'v'));
}

// As when the disk lost the last write of the map, and the older one still verifies.
void forget_in_map(MemoryDevice& disk, PageId page) {
  const disk::Layout layout = disk::Superblock::read(disk)->layout();
  alignas(kPageBytes) std::byte map[kPageBytes];
  disk.peek(layout.offset_of(map_of(page)), map);
  ASSERT_TRUE(test_bit(map, bit_of(page)));
  change_bits(map, bit_of(page), 1, false);
  disk::stamp_page(map_of(page), map, layout.checksum_seed());
  disk.poke(layout.offset_of(map_of(page)), map);
}

// By removing a large value and by merging leaves.
TEST(BtreeDamage, APageThatIsFreeInTheMapIsNotFreedAgain) {
  auto disk = new_disk();
  const std::string large(20'000, 'v');
  {
    auto db = Db::open(*disk);
    ASSERT_OK(db);
    Txn txn(**db);
    for (unsigned i = 0; i < 100; ++i) ASSERT_OK((*db)->tree().put(txn.txn, as_bytes(key_of(i)), as_bytes(std::string(100, 'v'))));
    ASSERT_OK((*db)->tree().put(txn.txn, as_bytes("large"), as_bytes(large)));
    ASSERT_OK(txn.commit_durably());
    ASSERT_OK((*db)->log->checkpoint(true));
  }
  const disk::Layout layout = disk::Superblock::read(*disk)->layout();
  alignas(kPageBytes) std::byte page[kPageBytes];
  for (std::uint64_t p = kFirstFreePage; p < layout.page_count; ++p) {
    disk->peek(layout.offset_of(PageId(p)), page);
    if (disk::page_verifies(PageId(p), page, layout.checksum_seed())) forget_in_map(*disk, PageId(p));
  }
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  {
    Txn txn(**db);
    ASSERT_OK((*db)->tree().remove(txn.txn, as_bytes("large")));
    EXPECT_TRUE(txn.commit_durably().failed_with(Code::kCorrupt));
    ASSERT_OK(txn.roll_back());
  }
  Result<> outcome;
  for (unsigned i = 0; i < 100 && outcome; ++i) {
    Txn txn(**db);
    if (auto removed = (*db)->tree().remove(txn.txn, as_bytes(key_of(i))); !removed) outcome = std::move(removed).error();
    if (outcome) outcome = txn.commit_durably();
    if (!outcome) ASSERT_OK(txn.roll_back());
  }
  EXPECT_TRUE(outcome.failed_with(Code::kCorrupt));
}

// A split that is given the very page that it splits: it would wait for itself.
TEST(BtreeDamage, APageThatIsFreeInTheMapIsNotGivenToItsOwnSplit) {
  auto disk = disk_with_tree();
  Leaf last;
  ASSERT_NO_FATAL_FAILURE(find_leaf(*disk, last, [](NodeView node) { return node.upper().empty(); }));
  forget_in_map(*disk, last.id);
  auto db = Db::open(*disk);
  ASSERT_OK(db);
  Result<> outcome;
  for (unsigned i = 0; i < 100 && outcome; ++i) {
    Txn txn(**db);
    if (auto put = (*db)->tree().put(txn.txn, as_bytes(key_of(kKeys + i)), as_bytes(std::string(100, 'v'))); !put) outcome = std::move(put).error();
    if (outcome) outcome = txn.commit_durably();
    else ASSERT_OK(txn.roll_back());
  }
  EXPECT_TRUE(outcome.failed_with(Code::kCorrupt));
}

}  // namespace
}  // namespace kelda::btree
