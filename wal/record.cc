// Encoding and checked decoding of log records.
#include "wal/record.h"

#include <cstring>

#include "common/assert.h"
#include "common/planted_bug.h"
#include "disk/layout.h"

namespace kelda::wal {
namespace {

constexpr std::uint64_t kPageMask = (std::uint64_t{1} << 56) - 1;

std::byte* put(std::byte* out, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(out, from, bytes);
  return out + bytes;
}

std::uint64_t payload_bytes(const PageChange& change) {
  return change.first.size() + change.second.size() + change.third.size();
}

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace

std::uint64_t encoded_bytes(const RecordSpec& spec) {
  std::uint64_t bytes = sizeof(RecordHeader) + spec.undo.size();
  for (const PageChange& change : spec.changes) bytes += kChangeHeaderBytes + payload_bytes(change);
  return round_up(bytes, 8);
}

void encode(const RecordSpec& spec, const bufferpool::BufferPool* pool, std::uint64_t bytes, std::byte* out) {
  KELDA_ASSERT(spec.changes.size() <= UINT16_MAX);
  RecordHeader header{};
  header.bytes = static_cast<std::uint32_t>(bytes);
  header.kind = static_cast<std::uint8_t>(spec.kind);
  header.change_count = static_cast<std::uint16_t>(spec.changes.size());
  header.txn = spec.txn.value;
  header.undo_bytes = static_cast<std::uint32_t>(spec.undo.size());
  header.count_delta = spec.count.delta;
  header.tree = spec.count.tree.value;
  header.undo_next = planted(Bug::kCompensationWithoutUndoNext) ? 0 : spec.undo_next.value;
  std::byte* const end = out + bytes;
  out = put(out, &header, sizeof header);
  for (const PageChange& change : spec.changes) {
    KELDA_ASSERT(change.page.value <= kPageMask);
    const std::uint64_t page_and_op = change.page.value | std::uint64_t{change.op} << 56;
    const std::uint64_t prev_lsn = disk::header_of(pool->data(change.page)).lsn;
    const auto size = static_cast<std::uint32_t>(payload_bytes(change));
    out = put(out, &page_and_op, 8);
    out = put(out, &prev_lsn, 8);
    out = put(out, &size, 4);
    out = put(out, change.first.data(), change.first.size());
    out = put(out, change.second.data(), change.second.size());
    out = put(out, change.third.data(), change.third.size());
  }
  out = put(out, spec.undo.data(), spec.undo.size());
  KELDA_ASSERT(out <= end && end - out < 8);
  std::memset(out, 0, static_cast<std::size_t>(end - out));
}

void set_lsn(std::byte* record, Lsn lsn) { std::memcpy(record + offsetof(RecordHeader, lsn), &lsn.value, 8); }

std::optional<RecordView> RecordView::parse(Bytes from) {
  if (from.size() < sizeof(RecordHeader)) return std::nullopt;
  RecordView view;
  view.at_ = from.data();
  view.header_ = load<RecordHeader>(from.data());
  const RecordHeader& h = view.header_;
  if (h.bytes % 8 != 0 || h.bytes < sizeof(RecordHeader) || h.bytes > from.size() || h.lsn == 0 || h.zero != 0) return std::nullopt;
  if (h.kind < std::uint8_t(RecordKind::kUpdate) || h.kind > std::uint8_t(RecordKind::kCheckpointEnd)) return std::nullopt;
  std::uint64_t offset = sizeof(RecordHeader);
  for (std::uint32_t i = 0; i < h.change_count; ++i) {
    if (offset + kChangeHeaderBytes > h.bytes) return std::nullopt;
    offset += kChangeHeaderBytes + load<std::uint32_t>(view.at_ + offset + 16);
  }
  if (offset + h.undo_bytes > h.bytes || round_up(offset + h.undo_bytes, 8) != h.bytes) return std::nullopt;
  view.undo_ = Bytes(view.at_ + offset, h.undo_bytes);
  return view;
}

ChangeView RecordView::change_at(std::size_t& offset) const {
  const std::byte* at = at_ + sizeof(RecordHeader) + offset;
  const auto page_and_op = load<std::uint64_t>(at);
  const auto size = load<std::uint32_t>(at + 16);
  offset += kChangeHeaderBytes + size;
  return {PageId{page_and_op & kPageMask}, static_cast<std::uint8_t>(page_and_op >> 56), Lsn{load<std::uint64_t>(at + 8)},
          Bytes(at + kChangeHeaderBytes, size)};
}

}  // namespace kelda::wal
