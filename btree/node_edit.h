// Changes of one node, as pure functions on a page: the first time and at redo the same ones.
//
// Contract: the caller holds the page exclusively; arguments do not point into the page that is changed. Room is asked
// for first (fits_*): an edit that does not fit is a broken caller and aborts. Bytes 0..23 of the page (checksum, id,
// lsn) are never touched. Redo checks its input before it calls these (node_ops.h).
#pragma once

#include <string>

#include "btree/node_search.h"

namespace kelda::btree {

// An empty node.
void init_node(std::byte* page, TreeId tree, unsigned level, Bytes lower, Bytes upper, PageId first_child = kNoPage);

// Bytes that a cell takes with its slot, for a key given whole.
inline std::size_t footprint(NodeView node, std::size_t key_bytes, std::size_t value_bytes) {
  return kSlotBytes + kCellHeaderBytes + key_bytes - node.prefix_bytes() + value_bytes;
}
inline bool fits_insert(NodeView node, std::size_t key_bytes, std::size_t value_bytes) {
  return footprint(node, key_bytes, value_bytes) <= node.free_bytes() && node.count() < kMaxSlots;
}
bool fits_replace(NodeView node, unsigned slot, std::size_t value_bytes);

void insert_cell(std::byte* page, unsigned slot, Bytes suffix, std::uint16_t word, Bytes value);
void replace_value(std::byte* page, unsigned slot, std::uint16_t word, Bytes value);
void remove_cell(std::byte* page, unsigned slot);
// Keeps the first `keep` slots; fences stay.
void remove_tail(std::byte* page, unsigned keep);
// Keeps the first `keep` slots and takes a new upper fence: the left half of a split.
void truncate_node(std::byte* page, unsigned keep, Bytes upper);
// Squeezes the garbage out of the heap.
void compact_node(std::byte* page);

// Builds in `out` the right half of a split of `source`: slots from `begin` on, lower fence `lower`.
void build_right(std::byte* out, NodeView source, unsigned begin, Bytes lower, PageId first_child);

// `right` is the next sibling of `left`, same level. Bytes used after a merge (may exceed kNodeSpace).
std::size_t merged_bytes(NodeView left, NodeView right);
inline bool fits_merge(NodeView left, NodeView right) {
  return merged_bytes(left, right) <= kNodeSpace && left.count() + right.count() + 1 <= kMaxSlots;
}
void merge_right(std::byte* left, NodeView right);

// Keys joined: prefix + suffix.
std::string full_key(NodeView node, unsigned slot);

// Where to split.
struct SplitPoint {
  unsigned keep;          // slots that stay left; an inner node's slot `keep` moves up
  std::string separator;  // left keys < separator <= right keys
};
// For a leaf that is to take `key` with a cell of `footprint_bytes` at `slot`, as a new key or in place of the cell there.
// Prefers the middle by bytes, the end when keys arrive in order, and short separators; both halves fit
// (docs/format-btree.md, "Bounds"). At least one slot, two if the cell is replaced.
SplitPoint choose_leaf_split(NodeView leaf, Position at, Bytes key, std::size_t footprint_bytes);
// For an inner node with at least one separator. `slot`: where the new separator will go.
SplitPoint choose_inner_split(NodeView inner, unsigned slot);

void make_hints(std::byte* page, unsigned from_slot = 0);

}  // namespace kelda::btree
