#include "btree/node_edit.h"

#include "btree/node_search.h"
#include "common/assert.h"
#include "common/planted_bug.h"

namespace kelda::btree {

namespace {

std::uint64_t* mutable_slots(std::byte* page) { return reinterpret_cast<std::uint64_t*>(page + sizeof(NodeHeader)); }

std::size_t contiguous_bytes(std::byte* page) {
  const NodeHeader& h = node_header(page);
  return h.heap_begin - sizeof(NodeHeader) - h.count * kSlotBytes;
}

// Takes `bytes` from the free middle; compacts first when they lie scattered. `extra` bytes stay free for a slot.
std::uint16_t take_heap(std::byte* page, std::size_t bytes, std::size_t extra) {
  if (contiguous_bytes(page) < bytes + extra) compact_node(page);
  KELDA_ASSERT(contiguous_bytes(page) >= bytes + extra);
  NodeHeader& h = node_header(page);
  h.heap_begin = static_cast<std::uint16_t>(h.heap_begin - bytes);
  h.heap_used = static_cast<std::uint16_t>(h.heap_used + bytes);
  return h.heap_begin;
}

void copy(std::byte* to, Bytes from) {
  if (!from.empty()) std::memcpy(to, from.data(), from.size());
}

void write_cell(std::byte* cell, Bytes suffix_a, Bytes suffix_b, std::uint16_t word, Bytes value) {
  std::memcpy(cell, &word, sizeof word);
  copy(cell + kCellHeaderBytes, suffix_a);
  copy(cell + kCellHeaderBytes + suffix_a.size(), suffix_b);
  copy(cell + kCellHeaderBytes + suffix_a.size() + suffix_b.size(), value);
}

// Puts a cell after all others. The suffix comes in two parts.
void append_cell(std::byte* page, Bytes suffix_a, Bytes suffix_b, std::uint16_t word, Bytes value) {
  const std::size_t suffix_bytes = suffix_a.size() + suffix_b.size();
  const std::uint16_t offset = take_heap(page, kCellHeaderBytes + suffix_bytes + value.size(), kSlotBytes);
  write_cell(page + offset, suffix_a, suffix_b, word, value);
  const std::uint32_t head = head_of({page + offset + kCellHeaderBytes, suffix_bytes});
  NodeHeader& h = node_header(page);
  mutable_slots(page)[h.count++] = pack_slot({offset, static_cast<std::uint16_t>(suffix_bytes), head});
}

// Appends slots [begin, end) of another node, whose prefix may be longer or shorter.
void append_from(std::byte* page, NodeView source, unsigned begin, unsigned end) {
  const std::size_t prefix = node_header(page).prefix_bytes, source_prefix = source.prefix_bytes();
  Bytes before;
  if (prefix < source_prefix) before = source.prefix().subspan(prefix);
  const std::size_t skip = prefix > source_prefix ? prefix - source_prefix : 0;
  for (unsigned i = begin; i < end; ++i) {
    const Slot s = source.slot(i);
    append_cell(page, before, source.suffix(s).subspan(skip), source.value_word(s), source.value(s).bytes);
  }
}

void note_insert(NodeHeader& h, unsigned slot) {
  std::uint16_t last;
  std::memcpy(&last, h.page.owner + kOwnerLastInsert, sizeof last);
  std::uint8_t& run = h.page.owner[kOwnerInsertRun];
  const std::uint8_t length = std::min<std::uint8_t>(run & ~kDescendingRun, 126);
  if (h.count == 0) run = (run & kDescendingRun) | (length + 1);  // goes on in an empty node, whichever way
  else if (slot == last + 1u) run = run < kDescendingRun ? length + 1 : 1;
  else if (slot == last) run = kDescendingRun | (run >= kDescendingRun ? length + 1 : 1);
  else run = 0;
  const auto now = static_cast<std::uint16_t>(slot);
  std::memcpy(h.page.owner + kOwnerLastInsert, &now, sizeof now);
}

void reset_run(NodeHeader& h) { h.page.owner[kOwnerInsertRun] = 0; }

}  // namespace

void init_node(std::byte* page, TreeId tree, unsigned level, Bytes lower, Bytes upper, PageId first_child) {
  std::memset(page + offsetof(disk::PageHeader, type), 0, kPageBytes - offsetof(disk::PageHeader, type));
  NodeHeader& h = node_header(page);
  h.page.type = static_cast<std::uint8_t>(disk::PageType::kTreeNode);
  h.page.owner[kOwnerLevel] = static_cast<std::uint8_t>(level);
  h.tree = tree.value;
  h.heap_begin = kPageBytes;
  h.lower_offset = take_heap(page, lower.size(), 0);
  h.lower_bytes = static_cast<std::uint16_t>(lower.size());
  copy(page + h.lower_offset, lower);
  h.upper_offset = take_heap(page, upper.size(), 0);
  h.upper_bytes = static_cast<std::uint16_t>(upper.size());
  copy(page + h.upper_offset, upper);
  h.prefix_bytes = static_cast<std::uint16_t>(common_prefix(lower, upper));
  h.first_child = level > 0 ? first_child.value : prefix_check(lower.first(h.prefix_bytes));
}

bool fits_replace(NodeView node, unsigned slot, std::size_t value_bytes) {
  return value_bytes <= node.free_bytes() + node.value(slot).bytes.size();
}

void insert_cell(std::byte* page, unsigned slot, Bytes suffix, std::uint16_t word, Bytes value) {
  NodeHeader& h = node_header(page);
  KELDA_ASSERT(slot <= h.count && h.count < kMaxSlots);
  const std::uint16_t offset = take_heap(page, kCellHeaderBytes + suffix.size() + value.size(), kSlotBytes);
  write_cell(page + offset, suffix, {}, word, value);
  std::uint64_t* slots = mutable_slots(page);
  std::memmove(slots + slot + 1, slots + slot, (h.count - slot) * kSlotBytes);
  slots[slot] = pack_slot({offset, static_cast<std::uint16_t>(suffix.size()), head_of(suffix)});
  note_insert(h, slot);
  ++h.count;
  make_hints(page, slot);
}

void replace_value(std::byte* page, unsigned slot, std::uint16_t word, Bytes value) {
  NodeHeader& h = node_header(page);
  KELDA_ASSERT(slot < h.count);
  const NodeView node(page);
  Slot s = node.slot(slot);
  const std::size_t old_bytes = node.cell_bytes(s);
  const std::size_t new_bytes = kCellHeaderBytes + s.suffix_bytes + value.size();
  if (new_bytes > old_bytes) {
    // Moves to a new place. Its old bytes count as garbage first, so that compaction may use them: keep the suffix.
    std::byte suffix[kPageBytes];
    copy(suffix, node.suffix(s));
    h.heap_used = static_cast<std::uint16_t>(h.heap_used - old_bytes);
    mutable_slots(page)[slot] = pack_slot({0, 0, 0});  // an empty cell to compaction
    s.offset = take_heap(page, new_bytes, 0);
    write_cell(page + s.offset, {suffix, s.suffix_bytes}, {}, word, value);
    mutable_slots(page)[slot] = pack_slot(s);
    return;
  }
  std::memcpy(page + s.offset, &word, sizeof word);
  copy(page + s.offset + kCellHeaderBytes + s.suffix_bytes, value);
  h.heap_used = static_cast<std::uint16_t>(h.heap_used - (old_bytes - new_bytes));
}

void remove_cell(std::byte* page, unsigned slot) {
  NodeHeader& h = node_header(page);
  KELDA_ASSERT(slot < h.count);
  const NodeView node(page);
  h.heap_used = static_cast<std::uint16_t>(h.heap_used - node.cell_bytes(node.slot(slot)));
  std::uint64_t* slots = mutable_slots(page);
  std::memmove(slots + slot, slots + slot + 1, (h.count - slot - 1) * kSlotBytes);
  --h.count;
  reset_run(h);
  make_hints(page, slot);
}

void remove_tail(std::byte* page, unsigned keep) {
  NodeHeader& h = node_header(page);
  KELDA_ASSERT(keep <= h.count);
  const NodeView node(page);
  for (unsigned i = keep; i < h.count; ++i) {
    h.heap_used = static_cast<std::uint16_t>(h.heap_used - node.cell_bytes(node.slot(i)));
  }
  h.count = static_cast<std::uint16_t>(keep);
  reset_run(h);
  make_hints(page);
}

void truncate_node(std::byte* page, unsigned keep, Bytes upper) {
  alignas(8) std::byte old[kPageBytes];
  std::memcpy(old, page, kPageBytes);
  const NodeView source(old);
  KELDA_ASSERT(keep <= source.count());
  init_node(page, source.tree(), source.level(), source.lower(), upper, source.child(0));
  NodeHeader& h = node_header(page);
  h.page.owner[kOwnerFlags] = source.flags();
  append_from(page, source, 0, keep);
  make_hints(page);
  // A run of ordered inserts that ended here may go on here.
  std::uint16_t last;
  std::memcpy(&last, source.header().page.owner + kOwnerLastInsert, sizeof last);
  if (last < keep || keep == 0) std::memcpy(h.page.owner + kOwnerInsertRun, source.header().page.owner + kOwnerInsertRun, 3);
}

void compact_node(std::byte* page) {
  alignas(8) std::byte old[kPageBytes];
  std::memcpy(old, page, kPageBytes);
  const NodeView source(old);
  NodeHeader& h = node_header(page);
  h.heap_begin = kPageBytes;
  const auto place = [&](Bytes bytes) {
    h.heap_begin = static_cast<std::uint16_t>(h.heap_begin - bytes.size());
    copy(page + h.heap_begin, bytes);
    return h.heap_begin;
  };
  h.lower_offset = place(source.lower());
  h.upper_offset = place(source.upper());
  for (unsigned i = 0; i < h.count; ++i) {
    Slot s = source.slot(i);
    if (s.offset == 0) continue;  // being moved by replace_value
    s.offset = place({old + s.offset, source.cell_bytes(s)});
    mutable_slots(page)[i] = pack_slot(s);
  }
}

void build_right(std::byte* out, NodeView source, unsigned begin, Bytes lower, PageId first_child) {
  init_node(out, source.tree(), source.level(), lower, source.upper(), first_child);
  append_from(out, source, begin, source.count());
  // A run of ordered inserts goes on in the right half.
  NodeHeader& h = node_header(out);
  h.page.owner[kOwnerInsertRun] = source.header().page.owner[kOwnerInsertRun];
  const std::uint16_t last = static_cast<std::uint16_t>(h.count - 1);
  std::memcpy(h.page.owner + kOwnerLastInsert, &last, sizeof last);
  make_hints(out);
}

std::size_t merged_bytes(NodeView left, NodeView right) {
  const std::size_t prefix = common_prefix(left.lower(), right.upper());
  const auto cells = [&](NodeView node) {
    const std::size_t fences = node.lower().size() + node.upper().size();
    return node.used_bytes() - fences + node.count() * (node.prefix_bytes() - prefix);
  };
  std::size_t bytes = left.lower().size() + right.upper().size() + cells(left) + cells(right);
  if (!left.is_leaf()) bytes += kSlotBytes + kCellHeaderBytes + right.lower().size() - prefix + kChildBytes;
  return bytes;
}

void merge_right(std::byte* left, NodeView right) {
  alignas(8) std::byte old[kPageBytes];
  std::memcpy(old, left, kPageBytes);
  const NodeView source(old);
  init_node(left, source.tree(), source.level(), source.lower(), right.upper(), source.child(0));
  node_header(left).page.owner[kOwnerFlags] = source.flags();
  append_from(left, source, 0, source.count());
  if (!source.is_leaf()) {
    // The separator between the two comes down from the parent: it is the right node's lower fence.
    const std::uint64_t child = right.child(0).value;
    append_cell(left, right.lower().subspan(node_header(left).prefix_bytes), {}, kChildBytes,
                {reinterpret_cast<const std::byte*>(&child), kChildBytes});
  }
  append_from(left, right, planted(Bug::kMergeLosesKey) ? 1 : 0, right.count());
  make_hints(left);
}

std::string full_key(NodeView node, unsigned slot) {
  std::string key(as_view(node.prefix()));
  key += as_view(node.suffix(slot));
  return key;
}

void make_hints(std::byte* page, unsigned from_slot) {
  NodeHeader& h = node_header(page);
  const unsigned distance = hint_distance(h.count);
  if (distance == 0) return;
  // With the same distance, hints of slots before the change stay.
  const bool same = hint_distance(h.count - 1) == distance && hint_distance(h.count + 1u) == distance;
  const unsigned first = same ? from_slot / distance : 0;
  const std::uint64_t* slots = mutable_slots(page);
  for (unsigned i = first == 0 ? 0 : first - 1; i < kHintCount; ++i) {
    h.hints[i] = unpack_slot(slots[(i + 1) * distance]).head;
  }
}

}  // namespace kelda::btree
