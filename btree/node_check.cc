// Invariants N1..N3 of a node at rest, and the bounds of what it holds (docs/format-btree.md).
#include "btree/node_edit.h"
#include "btree/node_search.h"
#include "btree/ops.h"
#include "btree/overflow.h"
#include "btree/tree_steps.h"

namespace kelda::btree {

namespace {

Error bad(const char* what) { return Error(Code::kCorrupt, what); }

// Header fields and every cell lie within the page, and the space adds up.
Result<> check_space(NodeView node) {
  const NodeHeader& h = node.header();
  if (h.count > kMaxSlots) return bad("more slots than fit");
  if (h.heap_begin > kPageBytes || sizeof(NodeHeader) + h.count * kSlotBytes > h.heap_begin) {
    return bad("slots reach into the heap");
  }
  const auto inside = [&](std::size_t offset, std::size_t bytes) {
    return offset >= h.heap_begin && offset + bytes <= kPageBytes;
  };
  if (h.lower_bytes > kMaxKeyBytes || h.upper_bytes > kMaxKeyBytes) return bad("fence too long");
  if (!inside(h.lower_offset, h.lower_bytes) || !inside(h.upper_offset, h.upper_bytes)) return bad("fence outside the heap");
  if (node.prefix_bytes() != common_prefix(node.lower(), node.upper())) return bad("prefix is not that of the fences");
  std::size_t used = h.lower_bytes + h.upper_bytes;
  for (unsigned i = 0; i < h.count; ++i) {
    const Slot s = node.slot(i);
    if (!inside(s.offset, kCellHeaderBytes) || !inside(s.offset, node.cell_bytes(s))) return bad("cell outside the heap");
    if (!is_legal_cell(node, s.suffix_bytes, node.value_word(s))) return bad("cell too long, or not of its level");
    used += node.cell_bytes(s);
  }
  if (used != h.heap_used || used > kPageBytes - h.heap_begin) return bad("heap does not add up");
  return {};
}

Result<> check_order(NodeView node) {
  if (!node.upper().empty() && compare_bytes(node.lower(), node.upper()) >= 0) return bad("fences out of order");
  const auto tail = [&](Bytes fence) { return fence.subspan(node.prefix_bytes()); };
  for (unsigned i = 0; i < node.count(); ++i) {
    const Bytes suffix = node.suffix(i);
    if (node.slot(i).head != head_of(suffix)) return bad("head is not that of its key");
    // A separator that equals the lower fence would leave its left child no keys.
    if (i == 0 && compare_bytes(suffix, tail(node.lower())) < (node.is_leaf() ? 0 : 1)) return bad("key below the lower fence");
    if (i > 0 && compare_bytes(node.suffix(i - 1), suffix) >= 0) return bad("keys out of order");
  }
  if (node.count() > 0 && !node.upper().empty() &&
      compare_bytes(node.suffix(node.count() - 1), tail(node.upper())) >= 0) {
    return bad("key not below the upper fence");
  }
  return {};
}

}  // namespace

bool is_legal_cell(NodeView node, std::size_t suffix_bytes, std::uint16_t word) {
  const std::size_t key_bytes = node.prefix_bytes() + suffix_bytes;
  if (key_bytes > kMaxKeyBytes) return false;
  if (!node.is_leaf()) return word == kChildBytes;
  if ((word & kOverflowFlag) != 0) return word == (kOverflowFlag | OverflowRef::kBytes);
  return word <= max_inline_bytes(key_bytes);
}

Result<> check_node(NodeView node) {
  if (!node.is_node()) return bad("not a tree node");
  if (node.level() > kMaxLevel) return bad("level too high");
  TRY(check_space(node));
  TRY(check_order(node));
  const unsigned distance = hint_distance(node.count());
  for (unsigned i = 0; distance != 0 && i < kHintCount; ++i) {
    if (node.header().hints[i] != node.slot((i + 1) * distance).head) return bad("stale hint");
  }
  return {};
}

}  // namespace kelda::btree
