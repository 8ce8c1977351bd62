// Where a node is split.
#include "btree/node_edit.h"
#include "common/assert.h"
#include "common/planted_bug.h"

namespace kelda::btree {

namespace {

constexpr unsigned kOrderedRun = 6;  // so many inserts in a row, each after the last: keys arrive in order

enum class Arrival : std::uint8_t { kRandom, kAscending, kDescending };

Arrival arrival_of(NodeView node, unsigned slot) {
  std::uint16_t last;
  std::memcpy(&last, node.header().page.owner + kOwnerLastInsert, sizeof last);
  const std::uint8_t run = node.header().page.owner[kOwnerInsertRun];
  if ((run & ~kDescendingRun) < kOrderedRun) return Arrival::kRandom;
  if (run < kDescendingRun) return slot == last + 1u ? Arrival::kAscending : Arrival::kRandom;
  return slot == last ? Arrival::kDescending : Arrival::kRandom;
}

std::size_t slot_footprint(NodeView node, unsigned slot) { return kSlotBytes + node.cell_bytes(node.slot(slot)); }

// The leaf's keys with the new cell in its place: item i is a slot, or the new cell.
class Items {
 public:
  Items(NodeView leaf, Position at, Bytes new_key, std::size_t new_footprint)
      : leaf_(leaf), new_at_(at.slot), replaces_(at.exact), new_key_(new_key), new_footprint_(new_footprint) {}
  unsigned count() const { return leaf_.count() + !replaces_; }
  bool is_new(unsigned i) const { return i == new_at_; }
  unsigned slot(unsigned i) const { return i < new_at_ || replaces_ ? i : i - 1; }
  unsigned slots_before(unsigned i) const { return i <= new_at_ || replaces_ ? i : i - 1; }
  std::size_t footprint(unsigned i) const { return is_new(i) ? new_footprint_ : slot_footprint(leaf_, slot(i)); }
  // Suffixes; the new key has the node's prefix too.
  Bytes suffix(unsigned i) const { return is_new(i) ? new_key_.subspan(leaf_.prefix_bytes()) : leaf_.suffix(slot(i)); }
  // Bytes of the shortest separator between items i - 1 and i.
  std::size_t separator_bytes(unsigned i) const {
    return leaf_.prefix_bytes() + common_prefix(suffix(i - 1), suffix(i)) + 1;
  }
  // Do the existing cells fit with a separator at i as fence? (The prefix of both halves is at least today's.)
  bool halves_fit(unsigned i) const {
    std::size_t left = leaf_.lower().size() + separator_bytes(i), right = separator_bytes(i) + leaf_.upper().size();
    for (unsigned s = 0; s < leaf_.count(); ++s) (s < slots_before(i) ? left : right) += slot_footprint(leaf_, s);
    return left <= kNodeSpace && right <= kNodeSpace;
  }
  SplitPoint at(unsigned i) const {
    std::string separator(as_view(leaf_.prefix()));
    separator += as_view(suffix(planted(Bug::kSeparatorTooLow) ? i - 1 : i).first(separator_bytes(i) - leaf_.prefix_bytes()));
    return {slots_before(i), std::move(separator)};
  }

 private:
  NodeView leaf_;
  unsigned new_at_;
  bool replaces_;
  Bytes new_key_;
  std::size_t new_footprint_;
};

// First boundary with at least half of the bytes on its left.
unsigned middle_of(const Items& items) {
  std::size_t total = 0, left = 0;
  for (unsigned i = 0; i < items.count(); ++i) total += items.footprint(i);
  for (unsigned i = 0; i < items.count(); ++i) {
    left += items.footprint(i);
    if (left * 2 >= total) return std::clamp(i + 1, 1u, items.count() - 1);
  }
  return items.count() - 1;
}

}  // namespace

SplitPoint choose_leaf_split(NodeView leaf, Position at, Bytes key, std::size_t footprint_bytes) {
  const Items items(leaf, at, key, footprint_bytes);
  KELDA_ASSERT(items.count() >= 2);
  const Arrival arrival = at.exact ? Arrival::kRandom : arrival_of(leaf, at.slot);
  if (arrival != Arrival::kRandom) {
    // The new key starts the right half if it is the last of all, else it ends the left one; a key or two go with it
    // where the separator would not fit as a fence of the other half.
    unsigned boundary = at.slot == leaf.count() ? at.slot : at.slot + 1;
    for (int tries = 0; tries < 4 && boundary > 0 && boundary < items.count(); ++tries) {
      if (items.halves_fit(boundary)) return items.at(boundary);
      boundary += arrival == Arrival::kAscending ? -1 : 1;
    }
  }
  // Near the middle, the boundary with the shortest separator; wider until one fits.
  const unsigned middle = middle_of(items);
  const unsigned window = items.count() / 16;
  unsigned best = 0;
  for (unsigned distance = 0; distance < items.count(); ++distance) {
    if (distance > window && best != 0) break;
    for (const unsigned i : {middle - distance, middle + distance}) {
      if (i < 1 || i >= items.count() || !items.halves_fit(i)) continue;
      if (best == 0 || items.separator_bytes(i) < items.separator_bytes(best)) best = i;
    }
  }
  KELDA_ASSERT(best != 0);
  return items.at(best);
}

SplitPoint choose_inner_split(NodeView inner, unsigned slot) {
  const unsigned count = inner.count();
  KELDA_ASSERT(count >= 1);
  unsigned middle = count / 2;
  const Arrival arrival = arrival_of(inner, slot);
  if (arrival == Arrival::kAscending && slot == count) middle = count - 1 - count / 16;
  if (arrival == Arrival::kDescending && slot == 0) middle = count / 16;
  const unsigned window = count / 16;
  unsigned best = middle;
  for (unsigned i = middle - std::min(window, middle); i <= std::min(middle + window, count - 1); ++i) {
    if (inner.suffix(i).size() < inner.suffix(best).size()) best = i;
  }
  return {best, full_key(inner, best)};
}

}  // namespace kelda::btree
