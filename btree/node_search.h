// Search within one node. Safe on garbage (see NodeView); inline, because every descent runs it.
//
// The key that is searched should lie within the node's fences, and so begin with the node's prefix: only suffixes are
// compared. A node on which the disk lost a write can be one of other keys: what is found in a leaf counts if is_home_of().
// Method: hints narrow the range, 4-byte heads are halved and then counted, whole suffixes only where heads tie
// (Leis et al., LeanStore; Bayer and Unterauer, Prefix B-Trees, 1977).
#pragma once

#include "btree/node_layout.h"

namespace kelda::btree {

// A key as one node compares it.
struct SearchKey {
  Bytes suffix;
  std::uint32_t head;
  SearchKey(NodeView node, Bytes key) : suffix(key.subspan(std::min(node.prefix_bytes(), key.size()))), head(head_of(suffix)) {}
};

KELDA_RACY_READ inline std::uint64_t load_big_endian(const std::byte* at) {
  std::uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return __builtin_bswap64(word);
}

// As compare_bytes, from byte `i` on: the ones before are equal, or one ends there.
KELDA_RACY_READ inline int compare_from(std::size_t i, Bytes a, Bytes b) {
  const std::size_t n = std::min(a.size(), b.size());
  for (; i + 8 <= n; i += 8) {
    const std::uint64_t x = load_big_endian(a.data() + i), y = load_big_endian(b.data() + i);
    if (x != y) return x < y ? -1 : 1;
  }
  for (; i < n; ++i) {
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  }
  return a.size() < b.size() ? -1 : a.size() > b.size() ? 1 : 0;
}

// Of suffixes whose heads are equal. If one ends within the head, it is a prefix of the other (zero padding).
inline int compare_tails(Bytes a, Bytes b) { return compare_from(4, a, b); }

inline int compare_slot(NodeView node, Slot slot, const SearchKey& key) {
  if (slot.head != key.head) return slot.head < key.head ? -1 : 1;
  node.prefetch_cell(slot);  // probably the one that is looked for: its value comes with its key
  return compare_tails(node.suffix(slot), key.suffix);
}

struct SlotRange {
  unsigned begin, end;
};

// Distance of hinted slots; 0: the node is too small for hints.
inline unsigned hint_distance(unsigned count) { return count / (kHintCount + 1); }

// How many heads are < and how many are <= the one that is searched.
struct HeadCounts {
  unsigned below, not_above;
};

// Of the hints, four at a time.
KELDA_RACY_READ inline HeadCounts count_hints(const std::uint32_t (&hints)[kHintCount], std::uint32_t head) {
  using Four [[gnu::vector_size(16)]] = std::uint32_t;
  using FourSigned [[gnu::vector_size(16)]] = std::int32_t;
  const Four heads = {head, head, head, head};
  FourSigned below = {}, not_above = {};  // minus the counts: a comparison that holds is -1
  for (std::size_t i = 0; i < kHintCount; i += 4) {
    Four four;
    std::memcpy(&four, hints + i, sizeof four);
    asm volatile("" : "+x"(four));  // as load_once
    below += four < heads;
    not_above += four <= heads;
  }
  return {static_cast<unsigned>(-(below[0] + below[1] + below[2] + below[3])),
          static_cast<unsigned>(-(not_above[0] + not_above[1] + not_above[2] + not_above[3]))};
}

// The range that must hold the first slot with a head >= `head` ... and all with an equal head.
inline SlotRange narrow(NodeView node, std::uint32_t head, unsigned count) {
  const unsigned distance = hint_distance(count);
  if (distance == 0) return {0, count};
  const auto [below, not_above] = count_hints(node.header().hints, head);
  // hints[i] is the head of slot (i + 1) * distance.
  return {below * distance, not_above < kHintCount ? std::min((not_above + 1) * distance, count) : count};
}

// Are the node's fences around the key?
inline bool covers(NodeView node, Bytes key) {
  return compare_from(0, node.lower(), key) <= 0 && (node.upper().empty() || compare_from(0, key, node.upper()) < 0);
}

struct Position {
  unsigned slot;
  bool exact;
};

// Does what was found at `at` of a leaf hold for the key? By N1 a suffix behind the right prefix is within the fences. The
// prefix check lies in the line that every reader has, the prefix itself would be one more to wait for.
inline bool is_home_of(NodeView leaf, Bytes key, Position at) {
  if (!at.exact) return covers(leaf, key);
  const std::size_t prefix_bytes = leaf.prefix_bytes();
  if (prefix_bytes > key.size()) return false;
  const Bytes prefix = key.first(prefix_bytes);
  return leaf.prefix_check() == prefix_check(prefix) || compare_from(0, leaf.prefix(), prefix) == 0;
}

// So few slots are counted rather than halved: no branch depends on what they hold, so their cache lines are fetched side
// by side, where halving waits for each and guesses wrong half the time.
inline constexpr unsigned kCountedSlots = 16;

inline HeadCounts count_heads(NodeView node, SlotRange range, std::uint32_t head) {
  HeadCounts counts{0, 0};
  for (unsigned i = range.begin; i < range.end; ++i) {
    const std::uint32_t other = node.slot(i).head;
    counts.below += other < head;
    counts.not_above += other <= head;
  }
  return counts;
}

// Halves a range of slots, not empty, around the one that is searched. True: range.begin is its slot.
inline bool halve(NodeView node, SlotRange& range, const SearchKey& key) {
  const unsigned middle = (range.begin + range.end) / 2;
  const int order = compare_slot(node, node.slot(middle), key);
  if (order > 0) range.end = middle;
  else range.begin = order < 0 ? middle + 1 : middle;
  return order == 0;
}

// First slot whose key is >= `key`.
inline Position lower_bound(NodeView node, Bytes key) {
  const SearchKey search(node, key);
  SlotRange range = narrow(node, search.head, node.count());
  while (range.end - range.begin > kCountedSlots) {
    if (halve(node, range, search)) return {range.begin, true};
  }
  const auto [below, not_above] = count_heads(node, range, search.head);
  range = {range.begin + below, range.begin + not_above};  // equal heads
  while (range.begin < range.end) {
    if (halve(node, range, search)) return {range.begin, true};
  }
  return {range.begin, false};
}

// Which child covers `key`: the number of separators <= key.
inline unsigned child_for(NodeView node, Bytes key) {
  const Position at = lower_bound(node, key);
  return at.slot + at.exact;
}

// Which child covers the greatest keys below `key` (empty: below everything unbounded): separators < key.
inline unsigned child_before(NodeView node, Bytes key) { return lower_bound(node, key).slot; }

}  // namespace kelda::btree
