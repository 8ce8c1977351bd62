// The page changes that trees and space write to the log, and their redo.
//
// Contract: a change is applied to exactly the page state that it was logged against (the log compares LSNs), so slots
// are enough to address cells. redo_change() checks everything it reads: a payload that does not fit the page is
// kCorrupt, never an access beyond it. The numbers are on disk: never reuse one. docs/format-btree.md.
#pragma once

#include <optional>

#include "btree/codec.h"
#include "btree/node_layout.h"
#include "common/result.h"
#include "wal/log.h"

namespace kelda::btree {

enum class PageOp : std::uint8_t {
  kNodeImage = 1,     // slots_end u16, heap_begin u16, bytes 24..slots_end, bytes heap_begin..4095. Overwrites
  kInsertCell = 2,    // slot u16, suffix bytes u16, value word u16, suffix, value
  kReplaceValue = 3,  // slot u16, value word u16, value
  kRemoveCell = 4,    // slot u16
  kTruncate = 5,      // keep u16, upper fence
  kMergeRight = 6,    // as kNodeImage, of the right sibling
  kRemoveTail = 7,    // keep u16
  kSetFlags = 8,      // flags u8
  kFormatMap = 16,    // nothing. Overwrites: an empty space map with its own bit set
  kSetBits = 17,      // runs of (first bit u16, count u16)
  kClearBits = 18,    // the same
  kOverflow = 24,     // bytes 24.. of an overflow page, as long as it is. Overwrites
};

// The image of a node as one change: keeps its small header while the change is in use. The node must be compact
// (compact_node) to be small, and stay unchanged.
class NodeImage {
 public:
  explicit NodeImage(const std::byte* page);
  wal::PageChange change(PageId page, PageOp op) const;
  std::size_t bytes() const { return header_.bytes().size() + low_.size() + high_.size(); }

 private:
  Writer<4> header_;
  Bytes low_, high_;
};

Result<> redo_change(std::uint8_t op, PageId page, std::byte* data, Bytes payload);
bool change_overwrites(std::uint8_t op);

// Deep check of one node's bytes (N1..N3, bounds); the message of kCorrupt says what is wrong.
Result<> check_node(NodeView node);
// May a node of this level and prefix have such a cell?
bool is_legal_cell(NodeView node, std::size_t suffix_bytes, std::uint16_t word);

// Undo information of key changes and allocations, as it lies in the log.
enum class UndoKind : std::uint8_t {
  kWasAbsent = 1,    // tree, root, key
  kWasInline = 2,    // tree, root, key, old value
  kWasOverflow = 3,  // tree, root, key, old OverflowRef
  kAllocated = 4,    // runs of pages (first varint, count varint)
  kTreeCreated = 5,  // tree, root
};

}  // namespace kelda::btree
