// Values that do not fit a leaf: their bytes lie in overflow pages of their own.
//
// Contract
//  - A value of one data page's capacity or less is that page; a longer one has an index page with the ids of its data
//    pages. Pages are written once, when the value is stored, and never changed until they are freed.
//  - Every page of a value carries its stamp, and no other value that ever had one of these pages has the same stamp (it
//    is the log's position after the page was allocated). So a reader that finds the stamp on every page has read one
//    value whole, though pages may be freed and reused at any moment; else the value was replaced meanwhile.
//
//  0..31 disk::PageHeader, type kOverflowIndex or kOverflowData
// 32 stamp u64
// 40 part u32    data page: its number; index page: total bytes of the value
// 44 bytes u32   data page: bytes in it; index page: count of data pages
// 48 data page: bytes; index page: page ids u64
#pragma once

#include <array>
#include <string>
#include <vector>

#include "btree/btree.h"
#include "btree/codec.h"
#include "disk/layout.h"

namespace kelda::btree {

struct OverflowHeader {
  disk::PageHeader page;
  std::uint64_t stamp;
  std::uint32_t part;
  std::uint32_t bytes;
};
static_assert(sizeof(OverflowHeader) == 48 && offsetof(OverflowHeader, stamp) == 32 && offsetof(OverflowHeader, part) == 40);

inline constexpr std::size_t kOverflowPageBytes = kPageBytes - sizeof(OverflowHeader);
inline constexpr std::size_t kMaxOverflowPages = (kMaxValueBytes + kOverflowPageBytes - 1) / kOverflowPageBytes;
static_assert(sizeof(OverflowHeader) + kMaxOverflowPages * 8 <= kPageBytes, "one index page must do");

// What the leaf holds in place of the value: bytes u32, page u64, stamp u64.
struct OverflowRef {
  std::uint32_t value_bytes = 0;
  PageId page;
  std::uint64_t stamp = 0;

  static constexpr std::size_t kBytes = 20;
  static OverflowRef decode(Bytes bytes);
  static OverflowRef decode_racy(Bytes bytes);  // from a page that is not validated yet
  std::array<std::byte, kBytes> encode() const;
  std::size_t data_page_count() const { return (value_bytes + kOverflowPageBytes - 1) / kOverflowPageBytes; }
  bool has_index() const { return value_bytes > kOverflowPageBytes; }
  // Can this be what a leaf holds?
  bool plausible(std::uint64_t page_count) const;
  bool operator==(const OverflowRef&) const = default;
};

// Stores a value as part of the transaction. What was written when it fails is in txn.free_at_commit.
Result<OverflowRef> write_overflow(const TreeEnv& env, TreeTxn& txn, Bytes value);

// Reads the value. kRestart: a page carries another stamp, so the value was replaced (or, if the leaf still refers to
// it, is damaged).
Result<> read_overflow(const TreeEnv& env, const OverflowRef& ref, std::string& value);

// All pages of the value, ascending. kRestart as above.
Result<std::vector<PageId>> overflow_pages(const TreeEnv& env, const OverflowRef& ref);

}  // namespace kelda::btree
