#include "btree/ops.h"

#include "btree/btree.h"
#include "btree/node_edit.h"
#include "btree/space_map.h"

namespace kelda::btree {

namespace {

constexpr std::size_t kImageFrom = offsetof(disk::PageHeader, type);

Error corrupt(PageId page, const char* what) {
  return Error(Code::kCorrupt, "page " + std::to_string(page.value) + ": log record does not fit: " + what);
}

// Writes a node image into `data`; false if it is no image.
bool load_image(std::byte* data, Bytes payload) {
  Reader reader(payload);
  const std::size_t slots_end = reader.number<std::uint16_t>(), heap_begin = reader.number<std::uint16_t>();
  if (!reader.ok() || slots_end < sizeof(NodeHeader) || slots_end > heap_begin || heap_begin > kPageBytes) return false;
  const Bytes low = reader.take(slots_end - kImageFrom), high = reader.rest();
  if (!reader.ok() || high.size() != kPageBytes - heap_begin) return false;
  std::memset(data + kImageFrom, 0, kPageBytes - kImageFrom);
  std::memcpy(data + kImageFrom, low.data(), low.size());
  if (!high.empty()) std::memcpy(data + heap_begin, high.data(), high.size());
  return true;
}

// Bytes that slots from `begin` on take.
std::size_t bytes_from(NodeView node, unsigned begin) {
  std::size_t bytes = 0;
  for (unsigned i = begin; i < node.count(); ++i) bytes += kSlotBytes + node.cell_bytes(node.slot(i));
  return bytes;
}

// Does a suffix in this slot keep the order?
bool is_in_order(NodeView node, unsigned slot, Bytes suffix) {
  const auto tail = [&](Bytes fence) { return fence.subspan(node.prefix_bytes()); };
  const bool above = slot > 0 || !node.is_leaf()
                         ? compare_bytes(slot > 0 ? node.suffix(slot - 1) : tail(node.lower()), suffix) < 0
                         : compare_bytes(tail(node.lower()), suffix) <= 0;
  if (slot < node.count()) return above && compare_bytes(suffix, node.suffix(slot)) < 0;
  return above && (node.upper().empty() || compare_bytes(suffix, tail(node.upper())) < 0);
}

Result<> redo_insert(PageId page, std::byte* data, Reader& in) {
  const NodeView node(data);
  const unsigned slot = in.number<std::uint16_t>();
  const std::size_t suffix_bytes = in.number<std::uint16_t>();
  const auto word = in.number<std::uint16_t>();
  const Bytes suffix = in.take(suffix_bytes), value = in.rest();
  if (!in.ok() || slot > node.count() || value.size() != (word & ~kOverflowFlag & 0xffffu) ||
      !is_legal_cell(node, suffix_bytes, word) || !is_in_order(node, slot, suffix) ||
      !fits_insert(node, node.prefix_bytes() + suffix_bytes, value.size())) {
    return corrupt(page, "insert");
  }
  insert_cell(data, slot, suffix, word, value);
  return {};
}

Result<> redo_replace(PageId page, std::byte* data, Reader& in) {
  const NodeView node(data);
  const unsigned slot = in.number<std::uint16_t>();
  const auto word = in.number<std::uint16_t>();
  const Bytes value = in.rest();
  if (!in.ok() || slot >= node.count() || value.size() != (word & ~kOverflowFlag & 0xffffu) ||
      !is_legal_cell(node, node.slot(slot).suffix_bytes, word) ||
      !fits_replace(node, slot, value.size())) {
    return corrupt(page, "replace");
  }
  replace_value(data, slot, word, value);
  return {};
}

Result<> redo_remove(PageId page, std::byte* data, Reader& in) {
  const unsigned slot = in.number<std::uint16_t>();
  if (!in.ok() || slot >= NodeView(data).count()) return corrupt(page, "remove");
  remove_cell(data, slot);
  return {};
}

// Can `fence` be the upper fence when only the first `keep` slots stay?
bool is_fence_after(NodeView node, unsigned keep, Bytes fence) {
  if (compare_bytes(node.lower(), fence) >= 0) return false;
  if (!node.upper().empty() && compare_bytes(fence, node.upper()) > 0) return false;
  return keep == 0 || compare_bytes(node.suffix(keep - 1), fence.subspan(node.prefix_bytes())) < 0;
}

Result<> redo_truncate(PageId page, std::byte* data, Reader& in) {
  const unsigned keep = in.number<std::uint16_t>();
  const Bytes upper = in.rest();
  const NodeView node(data);
  const std::size_t room = kNodeSpace - node.used_bytes() + node.upper().size();
  if (!in.ok() || keep > node.count() || upper.size() > room + bytes_from(node, keep) || upper.size() > kMaxKeyBytes ||
      !is_fence_after(node, keep, upper)) {
    return corrupt(page, "truncate");
  }
  truncate_node(data, keep, upper);
  return {};
}

Result<> redo_merge(PageId page, std::byte* data, Reader& in) {
  alignas(8) std::byte right[kPageBytes] = {};
  const NodeView left(data);
  if (!load_image(right, in.rest()) || !check_node(NodeView(right)) || left.upper().empty() ||
      as_view(left.upper()) != as_view(NodeView(right).lower()) || left.level() != NodeView(right).level() ||
      !fits_merge(left, NodeView(right))) {
    return corrupt(page, "merge");
  }
  merge_right(data, NodeView(right));
  return {};
}

Result<> redo_remove_tail(PageId page, std::byte* data, Reader& in) {
  const unsigned keep = in.number<std::uint16_t>();
  if (!in.ok() || keep > NodeView(data).count()) return corrupt(page, "remove tail");
  remove_tail(data, keep);
  return {};
}

Result<> redo_image(PageId page, std::byte* data, Reader& in) {
  if (!load_image(data, in.rest())) return corrupt(page, "image");
  return check_node(NodeView(data));
}

Result<> redo_overflow(PageId page, std::byte* data, Reader& in) {
  const Bytes bytes = in.rest();
  if (bytes.size() > kPageBytes - kImageFrom) return corrupt(page, "overflow page");
  std::memset(data + kImageFrom, 0, kPageBytes - kImageFrom);
  std::memcpy(data + kImageFrom, bytes.data(), bytes.size());
  return {};
}

Result<> redo_bits(PageId page, std::byte* data, Reader& in, bool set) {
  if (!is_space_map(data)) return corrupt(page, "not a space map");
  while (!in.at_end()) {
    const unsigned first = in.number<std::uint16_t>(), count = in.number<std::uint16_t>();
    if (!in.ok() || first + count > disk::kPagesPerSpaceMap) return corrupt(page, "space map bits");
    change_bits(data, first, count, set);
  }
  return {};
}

Result<> redo_on_node(PageOp op, PageId page, std::byte* data, Reader& in) {
  if (!NodeView(data).is_node()) return corrupt(page, "not a tree node");
  switch (op) {
    case PageOp::kInsertCell: return redo_insert(page, data, in);
    case PageOp::kReplaceValue: return redo_replace(page, data, in);
    case PageOp::kRemoveCell: return redo_remove(page, data, in);
    case PageOp::kTruncate: return redo_truncate(page, data, in);
    case PageOp::kMergeRight: return redo_merge(page, data, in);
    case PageOp::kRemoveTail: return redo_remove_tail(page, data, in);
    case PageOp::kSetFlags:
      node_header(data).page.owner[kOwnerFlags] = in.number<std::uint8_t>();
      return {};
    default: return corrupt(page, "unknown operation");
  }
}

}  // namespace

NodeImage::NodeImage(const std::byte* page) {
  const NodeView node(page);
  const std::size_t slots_end = sizeof(NodeHeader) + node.count() * kSlotBytes;
  const std::size_t heap_begin = node.header().heap_begin;
  header_.number(static_cast<std::uint16_t>(slots_end));
  header_.number(static_cast<std::uint16_t>(heap_begin));
  low_ = {page + kImageFrom, slots_end - kImageFrom};
  high_ = {page + heap_begin, kPageBytes - heap_begin};
}

wal::PageChange NodeImage::change(PageId page, PageOp op) const {
  return {page, static_cast<std::uint8_t>(op), header_.bytes(), low_, high_};
}

Result<> redo_change(std::uint8_t op, PageId page, std::byte* data, Bytes payload) {
  Reader in(payload);
  switch (static_cast<PageOp>(op)) {
    case PageOp::kNodeImage: return redo_image(page, data, in);
    case PageOp::kFormatMap: format_space_map(data); return {};
    case PageOp::kSetBits: return redo_bits(page, data, in, true);
    case PageOp::kClearBits: return redo_bits(page, data, in, false);
    case PageOp::kOverflow: return redo_overflow(page, data, in);
    default: return redo_on_node(static_cast<PageOp>(op), page, data, in);
  }
}

bool change_overwrites(std::uint8_t op) {
  const auto page_op = static_cast<PageOp>(op);
  return page_op == PageOp::kNodeImage || page_op == PageOp::kFormatMap || page_op == PageOp::kOverflow;
}

}  // namespace kelda::btree
