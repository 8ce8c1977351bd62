// See wal_harness.h.
#include "wal_harness.h"

namespace kelda::wal {
namespace {

struct Payload {
  std::uint32_t index;
  std::uint32_t zero;
  std::int64_t value;
};

struct UndoPayload {
  std::uint64_t page;
  std::uint32_t index;
  std::int32_t keys;
  std::int64_t delta;
};

template <class T>
Bytes bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

std::byte* counter_at(std::byte* page, std::uint32_t index) { return page + 64 + 8 * index; }

std::int64_t load(const std::byte* page, std::uint32_t index) {
  std::int64_t value;
  std::memcpy(&value, page + 64 + 8 * index, 8);
  return value;
}

}  // namespace

Result<> CounterPages::format(PageId page) {
  auto room = TRY(log_.reserve(nullptr, 0, 1));
  auto guard = TRY(bufferpool::ExclusiveGuard::take_fresh(pool_, page));
  const PageChange change{page, kFormat};
  const Lsn lsn = log_.append(room, nullptr, {.changes = {&change, 1}});
  disk::header_of(guard.data()).type = static_cast<std::uint8_t>(disk::PageType::kTreeNode);
  guard.mark_dirty(lsn);
  return {};
}

Result<> CounterPages::free(PageId map, PageId page) {
  auto room = TRY(log_.reserve(nullptr, sizeof(std::uint32_t), 1));
  {
    auto guard = TRY(bufferpool::ExclusiveGuard::take(pool_, map));
    const auto index = static_cast<std::uint32_t>(page.value);
    const PageChange change{map, kFree, bytes_of(index)};
    const Lsn lsn = log_.append(room, nullptr, {.changes = {&change, 1}});
    const std::int64_t freed = 1;
    std::memcpy(counter_at(guard.data(), index), &freed, 8);
    guard.mark_dirty(lsn);
  }
  pool_.drop({&page, 1});
  return {};
}

Result<bool> CounterPages::page_in_use(PageId page) {
  if (free_map == kNoPage) return true;
  return TRY(get({free_map, static_cast<std::uint32_t>(page.value)})) == 0;
}

Result<> CounterPages::add(TxnLog& txn, Slot slot, std::int64_t delta, std::int32_t keys) {
  return change(txn, slot, delta, keys, kNoLsn);
}

Result<> CounterPages::change(TxnLog& txn, Slot slot, std::int64_t delta, std::int32_t keys, Lsn undo_next) {
  const bool compensation = undo_next != kNoLsn;
  auto room = TRY(log_.reserve(&txn, sizeof(Payload) + sizeof(UndoPayload), 1, compensation));
  auto guard = TRY(bufferpool::ExclusiveGuard::take(pool_, slot.page));
  const Payload payload{slot.index, 0, load(guard.data(), slot.index) + delta};
  const UndoPayload undo{slot.page.value, slot.index, keys, delta};
  const PageChange page_change{slot.page, kSet, bytes_of(payload)};
  const Lsn lsn = log_.append(room, &txn,
                              {.changes = {&page_change, 1},
                               .undo = compensation ? Bytes{} : bytes_of(undo),
                               .undo_next = undo_next,
                               .count = {kTree, keys}});
  std::memcpy(counter_at(guard.data(), slot.index), &payload.value, 8);
  guard.mark_dirty(lsn);
  return {};
}

Result<std::int64_t> CounterPages::get(Slot slot) {
  auto guard = TRY(bufferpool::SharedGuard::take(pool_, slot.page));
  return load(guard.data(), slot.index);
}

Result<Lsn> CounterPages::noise(PageId page, std::uint64_t bytes) {
  const std::vector<std::byte> data(bytes, std::byte{0x5a});
  auto room = TRY(log_.reserve(nullptr, bytes, 1));
  auto guard = TRY(bufferpool::ExclusiveGuard::take(pool_, page));
  const PageChange change{page, kNoise, data};
  const Lsn lsn = log_.append(room, nullptr, {.changes = {&change, 1}});
  guard.mark_dirty(lsn);
  return lsn;
}

Result<Lsn> CounterPages::commit(TxnLog& txn) {
  auto room = TRY(log_.reserve(&txn, 0, 1, true));
  return log_.append_commit(room, txn);
}

Result<> CounterPages::commit_durably(TxnLog& txn) { return log_.wait_commit(TRY(commit(txn))); }

Result<> CounterPages::roll_back(TxnLog& txn) {
  while (!txn.undo.empty()) {
    const auto entry = txn.undo.back();
    const Bytes bytes = txn.undo_of(entry);
    TRY(undo(txn, entry.lsn, std::vector<std::byte>(bytes.begin(), bytes.end())));
  }
  auto room = TRY(log_.reserve(&txn, 0, 1, true));
  log_.append_abort(room, txn);
  return {};
}

Result<> CounterPages::redo(std::uint8_t op, PageId, std::byte* data, Bytes payload) {
  if (op == kFormat) {
    disk::header_of(data).type = static_cast<std::uint8_t>(disk::PageType::kTreeNode);
  } else if (op == kSet) {
    Payload set;
    if (payload.size() != sizeof set) return Error(Code::kCorrupt, "payload");
    std::memcpy(&set, payload.data(), sizeof set);
    std::memcpy(counter_at(data, set.index), &set.value, 8);
  } else if (op == kFree) {
    std::uint32_t index;
    if (payload.size() != sizeof index) return Error(Code::kCorrupt, "payload");
    std::memcpy(&index, payload.data(), sizeof index);
    const std::int64_t freed = 1;
    std::memcpy(counter_at(data, index), &freed, 8);
  }
  return {};
}

Result<> CounterPages::undo(TxnLog& txn, Lsn lsn, Bytes undo) {
  UndoPayload entry;
  if (undo.size() != sizeof entry) return Error(Code::kCorrupt, "undo");
  std::memcpy(&entry, undo.data(), sizeof entry);
  return change(txn, {PageId{entry.page}, entry.index}, -entry.delta, -entry.keys, lsn);
}

Result<std::unique_ptr<Db>> Db::open(blockdev::BlockDevice& device, const DbOptions& options) {
  const disk::Superblock superblock = TRY(disk::Superblock::read(device));
  std::unique_ptr<Db> db(new Db{device, superblock, {}, {}, {}, {}, {}});
  const disk::Layout& layout = db->superblock.layout();
  db->store = disk::make_double_write_store(device, layout);
  TRY(db->store->repair());
  db->pool = TRY(bufferpool::BufferPool::create({.frame_count = options.frames, .page_count = layout.page_count}, *db->store));
  db->log = TRY(Log::create(device, db->superblock, *db->pool, options.log));
  db->pool->set_write_barrier(*db->log);
  db->pages = std::make_unique<CounterPages>(*db->pool, *db->log);
  db->pages->free_map = options.free_map;
  db->report = TRY(db->log->recover(*db->pages));
  return db;
}

Result<std::unique_ptr<Db>> Db::open_with_page(blockdev::BlockDevice& device, const DbOptions& options) {
  auto db = TRY(open(device, options));
  TRY(db->pages->format(PageId{1}));
  return db;
}

std::unique_ptr<blockdev::MemoryDevice> new_disk(blockdev::MemoryOptions options, std::uint64_t log_bytes) {
  auto device = std::make_unique<blockdev::MemoryDevice>(options);
  EXPECT_TRUE(disk::Superblock::format(*device, {.log_bytes = log_bytes}).has_value());
  return device;
}

std::unique_ptr<blockdev::MemoryDevice> power_cut(blockdev::MemoryDevice& device, blockdev::Survival survival, std::uint64_t seed) {
  return device.crash(survival, seed);
}

}  // namespace kelda::wal
