// One log record as bytes. docs/format-wal.md draws it.
//
//   record   := header change* undo padding            (kUpdate, kCommit, kAbort)
//             | header body padding                    (the checkpoint kinds; body_bytes in the field of undo_bytes)
//   change   := change-header payload
//
// Records are multiples of 8 bytes and lie at multiples of 8; changes follow each other unaligned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "common/types.h"
#include "wal/log.h"

namespace kelda::wal {

enum class RecordKind : std::uint8_t {
  kUpdate = 1,
  kCommit = 2,
  kAbort = 3,
  kCheckpoint = 4,     // its LSN is the redo point; body: u64 number of trees with a count
  kCounts = 5,         // body: u64 LSN of the checkpoint record, then {u64 tree, i64 keys} as of that LSN
  kUndoCopy = 6,       // body: {u64 txn, u64 lsn, u32 bytes, undo}*
  kCheckpointEnd = 7,  // every copy of this checkpoint is before; body: u64 LSN of the checkpoint record
};

//  0 bytes        of the whole record, a multiple of 8
//  4 kind
//  5 zero
//  6 change_count
//  8 lsn
// 16 txn          0: nobody's
// 24 undo_bytes   or body bytes
// 28 count_delta
// 32 tree         whose count changes by count_delta
// 40 undo_next    LSN of the entry that this record compensates, or 0
struct RecordHeader {
  std::uint32_t bytes;
  std::uint8_t kind;
  std::uint8_t zero;
  std::uint16_t change_count;
  std::uint64_t lsn;
  std::uint64_t txn;
  std::uint32_t undo_bytes;
  std::int32_t count_delta;
  std::uint64_t tree;
  std::uint64_t undo_next;
};
static_assert(sizeof(RecordHeader) == 48 && offsetof(RecordHeader, lsn) == 8 && offsetof(RecordHeader, txn) == 16);
static_assert(offsetof(RecordHeader, undo_bytes) == 24 && offsetof(RecordHeader, tree) == 32);
static_assert(offsetof(RecordHeader, undo_next) == 40);

//  0 page and op  page in the low 56 bits, op in the high 8
//  8 prev_lsn     what the page carried before: redo applies a change only to exactly that version
// 16 bytes        of the payload
inline constexpr std::size_t kChangeHeaderBytes = 20;
inline constexpr std::size_t kUndoCopyHeaderBytes = 20;

// What reserve() adds for each record: its header, padding, and sixteen changes.
inline constexpr std::uint64_t kRecordOverheadBytes = sizeof(RecordHeader) + 8 + 16 * kChangeHeaderBytes;
static_assert(kChangeHeaderBytes <= kChangeOverheadBytes);

struct RecordSpec {
  RecordKind kind = RecordKind::kUpdate;
  TxnId txn{};
  std::span<const PageChange> changes{};
  Bytes undo{};  // or body
  CountChange count{};
  Lsn undo_next{};
};

std::uint64_t encoded_bytes(const RecordSpec& spec);
// Writes everything but the LSN (set_lsn) to `out`, which has encoded_bytes(). Each changed page tells its current LSN.
// `pool` may be null for a record without changes.
void encode(const RecordSpec& spec, const bufferpool::BufferPool* pool, std::uint64_t bytes, std::byte* out);
void set_lsn(std::byte* record, Lsn lsn);

// A decoded change; the payload points into the record.
struct ChangeView {
  PageId page;
  std::uint8_t op;
  Lsn prev_lsn;
  Bytes payload;
};

// A record that was checked for its structure: every length lies inside it.
class RecordView {
 public:
  // Nothing if the bytes at the start of `from` are no whole record.
  static std::optional<RecordView> parse(Bytes from);

  std::uint64_t bytes() const { return header_.bytes; }
  Bytes raw() const { return {at_, header_.bytes}; }
  RecordKind kind() const { return static_cast<RecordKind>(header_.kind); }
  Lsn lsn() const { return Lsn{header_.lsn}; }
  TxnId txn() const { return TxnId{header_.txn}; }
  CountChange count() const { return {TreeId{header_.tree}, header_.count_delta}; }
  Lsn undo_next() const { return Lsn{header_.undo_next}; }
  Bytes undo() const { return undo_; }
  Bytes body() const { return undo_; }
  std::uint32_t change_count() const { return header_.change_count; }

  // Walks the changes in order: offset starts at 0 and is moved on.
  ChangeView change_at(std::size_t& offset) const;

 private:
  const std::byte* at_ = nullptr;
  RecordHeader header_{};
  Bytes undo_;
};

}  // namespace kelda::wal
