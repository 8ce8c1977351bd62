// Nodes as pure pages: edits against a model, splits and merges, redo of every edit, and searches on garbage.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "btree/node_edit.h"
#include "btree/node_search.h"
#include "btree/ops.h"

namespace kelda::btree {
namespace {

struct alignas(4096) Page {
  std::byte bytes[kPageBytes] = {};
};

std::string random_key(std::mt19937_64& random, std::size_t max_bytes) {
  static const char* prefixes[] = {"", "u", "user:", "user:0000", "zebra/and/more/"};
  std::string key = prefixes[random() % 5];
  const std::size_t bytes = 1 + random() % max_bytes;
  while (key.size() < bytes) key += static_cast<char>(random() % 4 == 0 ? random() % 256 : 'a' + random() % 3);
  return key.substr(0, kPageBytes);
}

class ModelNode {
 public:
  ModelNode() { init_node(page.bytes, TreeId(7), 0, {}, {}); }
  NodeView view() const { return NodeView(page.bytes); }

  // Each edit is also redone on a twin from its log payload.
  bool put(const std::string& key, const std::string& value) {
    const Position at = lower_bound(view(), as_bytes(key));
    EXPECT_EQ(at.exact, model.contains(key));
    const auto word = static_cast<std::uint16_t>(value.size());
    Writer<8192> log;
    log.number(static_cast<std::uint16_t>(at.slot));
    if (at.exact) {
      if (!fits_replace(view(), at.slot, value.size())) return false;
      log.number(word);
      log.put(as_bytes(value));
      replace_value(page.bytes, at.slot, word, as_bytes(value));
      redo(PageOp::kReplaceValue, log.bytes());
    } else {
      if (!fits_insert(view(), key.size(), value.size())) return false;
      const Bytes suffix = as_bytes(key).subspan(view().prefix_bytes());
      log.number(static_cast<std::uint16_t>(suffix.size()));
      log.number(word);
      log.put(suffix);
      log.put(as_bytes(value));
      insert_cell(page.bytes, at.slot, suffix, word, as_bytes(value));
      redo(PageOp::kInsertCell, log.bytes());
    }
    model[key] = value;
    return true;
  }
  void remove(const std::string& key) {
    const Position at = lower_bound(view(), as_bytes(key));
    ASSERT_EQ(at.exact, model.contains(key));
    if (!at.exact) return;
    Writer<8> log;
    log.number(static_cast<std::uint16_t>(at.slot));
    remove_cell(page.bytes, at.slot);
    redo(PageOp::kRemoveCell, log.bytes());
    model.erase(key);
  }
  void redo(PageOp op, Bytes payload) {
    ASSERT_TRUE(redo_change(static_cast<std::uint8_t>(op), PageId(9), twin.bytes, payload).has_value());
  }
  void check() const {
    for (const Page* p : {&page, &twin}) {
      const NodeView node(p->bytes);
      const auto sound = check_node(node);
      ASSERT_TRUE(sound.has_value()) << sound.error().to_string();
      ASSERT_EQ(node.count(), model.size());
      unsigned i = 0;
      for (const auto& [key, value] : model) {
        ASSERT_EQ(full_key(node, i), key);
        ASSERT_EQ(as_view(node.value(i).bytes), value);
        ++i;
      }
    }
  }

  Page page, twin = page;
  std::map<std::string, std::string> model;
};

TEST(BtreeNode, EditsAgreeWithAModelAndWithTheirRedo) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 30; ++round) {
    ModelNode node;
    node.twin = node.page;
    const std::size_t key_bytes = 1 + random() % 60, value_bytes = 1 + random() % 200;
    for (int i = 0; i < 400; ++i) {
      const std::string key = random_key(random, key_bytes);
      if (random() % 3 != 0) node.put(key, std::string(random() % value_bytes, 'v'));
      else node.remove(key);
      if (!node.model.empty() && random() % 5 == 0) node.remove(node.model.begin()->first);
    }
    node.check();
    if (HasFatalFailure()) return;
  }
}

TEST(BtreeNode, SearchFindsEveryKeyAndEveryGap) {
  std::mt19937_64 random(2);
  ModelNode node;
  node.twin = node.page;
  while (node.put(random_key(random, 12), "")) {}
  EXPECT_GT(node.model.size(), 100u);  // hints are in use
  for (int i = 0; i < 5000; ++i) {
    const std::string key = random_key(random, 14);
    const auto expected = node.model.lower_bound(key);
    const Position at = lower_bound(node.view(), as_bytes(key));
    ASSERT_EQ(at.slot, static_cast<unsigned>(std::distance(node.model.begin(), expected)));
    ASSERT_EQ(at.exact, expected != node.model.end() && expected->first == key);
  }
}

TEST(BtreeNode, KeysWithZeroBytesAreDistinct) {
  ModelNode node;
  node.twin = node.page;
  for (const std::size_t zeros : {0, 1, 2, 3, 4, 5, 9}) {
    ASSERT_TRUE(node.put("a" + std::string(zeros, '\0'), std::to_string(zeros)));
    ASSERT_TRUE(node.put("abcd" + std::string(zeros, '\0'), std::to_string(zeros)));
  }
  node.check();
}

// Splits a full leaf and merges it again; every key stays, prefixes grow and shrink.
TEST(BtreeNode, SplitAndMergeKeepEveryKey) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; ++round) {
    ModelNode node;
    node.twin = node.page;
    const std::size_t key_bytes = round % 4 == 0 ? 1000 : 1 + random() % 40;
    const std::size_t value_bytes = round % 4 == 0 ? 900 : 1 + random() % 100;
    std::string key, value;
    do {
      key = random_key(random, key_bytes);
      value.assign(random() % value_bytes, 'v');
    } while (node.put(key, value));
    const Position at = lower_bound(node.view(), as_bytes(key));
    if (at.exact && node.view().count() < 2) continue;
    const SplitPoint split =
        choose_leaf_split(node.view(), at, as_bytes(key), footprint(node.view(), key.size(), value.size()));
    Page left = node.page, right;
    build_right(right.bytes, node.view(), split.keep, as_bytes(split.separator), kNoPage);
    truncate_node(left.bytes, split.keep, as_bytes(split.separator));
    const NodeView l(left.bytes), r(right.bytes);
    ASSERT_TRUE(check_node(l).has_value()) << check_node(l).error().to_string();
    ASSERT_TRUE(check_node(r).has_value()) << check_node(r).error().to_string();
    ASSERT_EQ(l.count() + r.count(), node.model.size());
    if (l.count() > 0) { ASSERT_LT(full_key(l, l.count() - 1), split.separator); }
    if (r.count() > 0) { ASSERT_GE(full_key(r, 0), split.separator); }
    ASSERT_TRUE(fits_merge(l, r));
    Page twin = left;
    compact_node(right.bytes);
    const NodeImage image(right.bytes);
    merge_right(left.bytes, r);
    const auto change = image.change(PageId(3), PageOp::kMergeRight);
    std::string payload;
    for (const Bytes part : {change.first, change.second, change.third}) payload += as_view(part);
    ASSERT_TRUE(redo_change(change.op, PageId(3), twin.bytes, as_bytes(payload)).has_value());
    node.page = left;
    node.twin = twin;
    node.check();
    if (HasFatalFailure()) return;
  }
}

// The example of docs/format-btree.md, byte for byte.
TEST(BtreeNode, ExampleOfTheFormatDocument) {
  Page page;
  init_node(page.bytes, TreeId(5), 0, as_bytes("user:1"), as_bytes("user:2"));
  insert_cell(page.bytes, 0, as_bytes("10"), 1, as_bytes("x"));
  insert_cell(page.bytes, 1, as_bytes("105"), 2, as_bytes("yy"));
  const auto hex = [&](std::size_t from, std::size_t bytes) {
    std::string text;
    for (std::size_t i = from; i < from + bytes; ++i) {
      char digits[4];
      std::snprintf(digits, sizeof digits, "%02x", std::to_integer<unsigned>(page.bytes[i]));
      text += digits;
    }
    return text;
  };
  EXPECT_EQ(hex(24, 3), "020000");
  EXPECT_EQ(hex(32, 32), "0500000000000000" "06daeeceb8708696" "0200e80f1800fa0f0600f40f06000500");
  EXPECT_EQ(hex(128, 16), "ef0f020000003031" "e80f030000353031");
  EXPECT_EQ(hex(4072, 12), "0200" "313035" "7979" "0100" "3130" "78");
  EXPECT_EQ(hex(4084, 12), "757365723a32" "757365723a31");
}

TEST(BtreeNode, OrderedInsertsSplitAtTheEnd) {
  ModelNode node;
  node.twin = node.page;
  char key[17];
  int i = 0;
  do std::snprintf(key, sizeof key, "%016d", i++);
  while (node.put(key, std::string(100, 'v')));
  const SplitPoint split = choose_leaf_split(node.view(), {node.view().count(), false}, as_bytes(key), 130);
  EXPECT_EQ(split.keep, node.view().count());
  EXPECT_LE(split.separator.size(), 16u);
}

TEST(BtreeNode, SeparatorsAreShort) {
  ModelNode node;
  node.twin = node.page;
  for (const char* key : {"apple-pie", "apple-tart", "banana-bread", "banana-split"}) node.put(key, std::string(800, 'v'));
  const SplitPoint split = choose_leaf_split(node.view(), {4, false}, as_bytes("cherry"), 800);
  EXPECT_EQ(split.separator.size(), 8u);  // "banana-s"
  EXPECT_EQ(split.keep, 3u);
}

// Garbage in every field: reads stay within the page (the sanitizer and the guard bytes see to it) and end.
TEST(BtreeNode, SearchOnGarbageStaysInThePage) {
  std::mt19937_64 random(4);
  auto page = std::make_unique<Page>();
  for (int round = 0; round < 20000; ++round) {
    if (round % 8 == 0) {
      for (std::size_t i = 0; i < kPageBytes; i += 8) {
        const std::uint64_t word = random();
        std::memcpy(page->bytes + i, &word, 8);
      }
    } else {
      for (int i = 0; i < 8; ++i) page->bytes[random() % 200] = std::byte(random());
    }
    const NodeView node(page->bytes);
    const std::string key = random_key(random, 40);
    const auto in_page = [&](Bytes b) { return b.data() >= page->bytes && b.data() + b.size() <= page->bytes + kPageBytes; };
    const Position at = lower_bound(node, as_bytes(key));
    ASSERT_LE(at.slot, kMaxSlots);
    if (at.slot < node.count()) {
      ASSERT_TRUE(in_page(node.value(at.slot).bytes));
      ASSERT_TRUE(in_page(node.suffix(at.slot)));
    }
    (void)node.child(std::min(child_for(node, as_bytes(key)), node.count()));
    ASSERT_TRUE(in_page(node.lower()) && in_page(node.upper()) && in_page(node.prefix()));
    (void)check_node(node);
  }
}

// Redo of damaged payloads is refused, not obeyed.
TEST(BtreeNode, RedoOfGarbageIsRefused) {
  std::mt19937_64 random(5);
  int refused = 0;
  for (int round = 0; round < 5000; ++round) {
    Page page;
    init_node(page.bytes, TreeId(1), 0, {}, {});
    insert_cell(page.bytes, 0, as_bytes("key"), 5, as_bytes("value"));
    std::string payload(random() % 60, '\0');
    for (char& c : payload) c = static_cast<char>(random() % 3 == 0 ? random() : 0);
    const auto op = static_cast<std::uint8_t>(random() % 26);
    refused += !redo_change(op, PageId(5), page.bytes, as_bytes(payload)).has_value();
  }
  EXPECT_GT(refused, 3000);
}

}  // namespace
}  // namespace kelda::btree
