// The bytes of a tree node, and read-only access to them that is safe on garbage.
//
// Contract
//  - Layout: fixed header | slots, growing up | free | heap of cells and fences, growing down. docs/format-btree.md.
//  - A node covers the keys lower <= key < upper (its fences; empty means unbounded). The bytes that both fences share
//    are the prefix: every key of the node begins with it, and only what follows (the suffix) is stored.
//  - NodeView may be used on a page that others change at the same time (optimistic reads): every offset and length is
//    loaded once and clamped to the page before use, so that no access leaves the page. What it returns then is
//    meaningless until the reader has validated its version.
//
// Invariants of a node at rest
//  N1. Slots are in ascending key order, without duplicates; all keys are within the fences.
//  N2. heap_used is the sum of the bytes of all cells and both fences; slots end at or below heap_begin.
//  N3. hints are those of make_hints().
//  N4. An inner node has count separators and count + 1 children; every child's fences are the separators around it.
#pragma once

#include <algorithm>
#include <cstring>

#include "bufferpool/racy_read.h"
#include "common/checksum.h"
#include "common/types.h"
#include "disk/layout.h"

namespace kelda::btree {

inline constexpr std::size_t kHintCount = 16;

//  0..31 disk::PageHeader, its owner bytes: 25 level (0 = leaf), 26 flags, 27 insert run, 28 last insert slot (u16)
// 32 tree         the tree's id
// 40 first_child  inner: child for keys below the first separator; leaf: prefix_check() of the prefix, or meaningless
// 48 count        slots
// 50 heap_begin   lowest byte of the heap
// 52 heap_used    live bytes in the heap
// 54 lower_offset, 56 lower_bytes   lower fence, whole
// 58 upper_offset, 60 upper_bytes   upper fence, whole; 0 bytes = unbounded
// 62 prefix_bytes
// 64 hints[16]    heads of evenly spaced slots, to narrow the search
// 128 slots
struct NodeHeader {
  disk::PageHeader page;
  std::uint64_t tree;
  std::uint64_t first_child;
  std::uint16_t count;
  std::uint16_t heap_begin;
  std::uint16_t heap_used;
  std::uint16_t lower_offset, lower_bytes;
  std::uint16_t upper_offset, upper_bytes;
  std::uint16_t prefix_bytes;
  std::uint32_t hints[kHintCount];
};
static_assert(sizeof(NodeHeader) == 128);
static_assert(offsetof(NodeHeader, tree) == 32 && offsetof(NodeHeader, count) == 48);
static_assert(offsetof(NodeHeader, prefix_bytes) == 62 && offsetof(NodeHeader, hints) == 64);

inline constexpr std::size_t kOwnerLevel = 0, kOwnerFlags = 1, kOwnerInsertRun = 2, kOwnerLastInsert = 3;
// The insert run: so many inserts in a row were each just after the one before (bits 0..6), or, with this bit, just before.
inline constexpr std::uint8_t kDescendingRun = 0x80;

// Node flags.
inline constexpr std::uint8_t kTreeIsDropped = 1;  // root only: the right edge is being freed; upper fences may be short

// A slot, 8 bytes, read and written as one word:
//   bits 0..15 offset of the cell | 16..31 suffix bytes | 32..63 head (first 4 suffix bytes, big-endian, zero-padded)
// A cell:  0 value word (u16) | 2 suffix | value.  In a leaf the value is the record's; the word is its length, or
// kOverflowFlag + the length of an OverflowRef. In an inner node the key is a separator and the value a 6-byte page id.
struct Slot {
  std::uint16_t offset;
  std::uint16_t suffix_bytes;
  std::uint32_t head;
};

inline constexpr std::size_t kSlotBytes = 8;
inline constexpr std::size_t kCellHeaderBytes = 2;
inline constexpr std::size_t kChildBytes = 6;
inline constexpr std::uint16_t kOverflowFlag = 0x8000;
inline constexpr std::size_t kNodeSpace = kPageBytes - sizeof(NodeHeader);
inline constexpr std::size_t kMaxSlots = kNodeSpace / kSlotBytes;
inline constexpr unsigned kMaxLevel = 56;  // an inner node has two children or its level is about to go; page ids have 56 bits

constexpr std::uint64_t pack_slot(Slot s) {
  return std::uint64_t{s.offset} | std::uint64_t{s.suffix_bytes} << 16 | std::uint64_t{s.head} << 32;
}
constexpr Slot unpack_slot(std::uint64_t word) {
  return {static_cast<std::uint16_t>(word), static_cast<std::uint16_t>(word >> 16),
          static_cast<std::uint32_t>(word >> 32)};
}

// One load that the compiler may not repeat: the value that was checked is the value that is used, though another core
// may be writing. Relaxed is enough: the version check orders everything.
template <class T>
KELDA_RACY_READ inline T load_once(const T& from) {
  return __atomic_load_n(&from, __ATOMIC_RELAXED);
}

// First four bytes as a number that compares like the bytes.
inline std::uint32_t head_of(Bytes suffix) {
  if (suffix.size() >= 4) {
    std::uint32_t word;
    std::memcpy(&word, suffix.data(), 4);
    return __builtin_bswap32(word);
  }
  std::uint32_t head = 0;
  for (std::size_t i = 0; i < suffix.size(); ++i) head |= std::to_integer<std::uint32_t>(suffix[i]) << (24 - 8 * i);
  return head;
}

KELDA_RACY_READ inline std::size_t common_prefix(Bytes a, Bytes b) {
  const std::size_t n = std::min(a.size(), b.size());
  std::size_t i = 0;
  while (i < n && a[i] == b[i]) ++i;
  return i;
}

// memcmp order, shorter first.
inline int compare_bytes(Bytes a, Bytes b) {
  const int order = std::memcmp(a.data(), b.data(), std::min(a.size(), b.size()));
  if (order != 0) return order;
  return a.size() < b.size() ? -1 : a.size() > b.size() ? 1 : 0;
}

// Tells prefixes apart without their bytes.
inline std::uint64_t prefix_check(Bytes prefix) { return prefix.empty() ? 0 : checksum64(prefix, 0); }

inline NodeHeader& node_header(std::byte* page) { return *reinterpret_cast<NodeHeader*>(page); }

class NodeView {
 public:
  explicit NodeView(const std::byte* page) : page_(page) {}

  const std::byte* page() const { return page_; }
  const NodeHeader& header() const { return *reinterpret_cast<const NodeHeader*>(page_); }
  bool is_node() const { return load_once(header().page.type) == static_cast<std::uint8_t>(disk::PageType::kTreeNode); }
  unsigned level() const { return load_once(header().page.owner[kOwnerLevel]); }
  bool is_leaf() const { return level() == 0; }
  std::uint8_t flags() const { return load_once(header().page.owner[kOwnerFlags]); }
  Lsn lsn() const { return Lsn(load_once(header().page.lsn)); }
  TreeId tree() const { return TreeId(load_once(header().tree)); }
  unsigned count() const { return std::min<unsigned>(load_once(header().count), kMaxSlots); }

  Slot slot(unsigned i) const { return unpack_slot(load_once(slots()[i])); }
  Bytes suffix(Slot s) const { return clamp(s.offset + kCellHeaderBytes, s.suffix_bytes); }
  Bytes suffix(unsigned i) const { return suffix(slot(i)); }

  struct Value {
    Bytes bytes;
    bool is_overflow;
  };
  Value value(Slot s) const {
    const std::uint16_t word = value_word(s);
    return {clamp(s.offset + kCellHeaderBytes + s.suffix_bytes, word & ~kOverflowFlag & 0xffff),
            (word & kOverflowFlag) != 0};
  }
  Value value(unsigned i) const { return value(slot(i)); }
  KELDA_RACY_READ std::uint16_t value_word(Slot s) const {
    std::uint16_t word;
    std::memcpy(&word, page_ + std::min<std::size_t>(s.offset, kPageBytes - sizeof word), sizeof word);
    asm volatile("" : "+r"(word));  // as load_once: the cell may be unaligned, so no atomic load
    return word;
  }
  // The lines of a cell behind its first.
  void prefetch_cell(Slot s) const {
    __builtin_prefetch(page_ + s.offset + 64);
    __builtin_prefetch(page_ + s.offset + 128);
  }
  std::size_t cell_bytes(Slot s) const {
    return kCellHeaderBytes + s.suffix_bytes + (value_word(s) & ~kOverflowFlag & 0xffffu);
  }

  // Children are numbered 0 .. count: 0 is first_child, i + 1 belongs to separator i.
  KELDA_RACY_READ PageId child(unsigned i) const {
    if (i == 0) return PageId(load_once(header().first_child));
    const Slot s = slot(i - 1);
    const std::size_t at = std::min<std::size_t>(s.offset + kCellHeaderBytes + s.suffix_bytes, kPageBytes - kChildBytes);
    std::uint64_t id = 0;
    std::memcpy(&id, page_ + at, kChildBytes);
    return PageId(id);
  }

  Bytes lower() const { return clamp(load_once(header().lower_offset), load_once(header().lower_bytes)); }
  Bytes upper() const { return clamp(load_once(header().upper_offset), load_once(header().upper_bytes)); }
  std::size_t prefix_bytes() const { return load_once(header().prefix_bytes); }
  std::uint64_t prefix_check() const { return load_once(header().first_child); }  // leaf
  Bytes prefix() const { return clamp(load_once(header().lower_offset), prefix_bytes()); }

  // Bytes that cells and slots may still take, after compaction.
  std::size_t free_bytes() const {
    const std::size_t taken = count() * kSlotBytes + load_once(header().heap_used);
    return taken > kNodeSpace ? 0 : kNodeSpace - taken;
  }
  std::size_t used_bytes() const { return kNodeSpace - free_bytes(); }

  const std::uint64_t* slots() const { return reinterpret_cast<const std::uint64_t*>(page_ + sizeof(NodeHeader)); }

 private:
  Bytes clamp(std::size_t offset, std::size_t bytes) const {
    offset = std::min(offset, kPageBytes);
    return {page_ + offset, std::min(bytes, kPageBytes - offset)};
  }

  const std::byte* page_;
};

}  // namespace kelda::btree
