#include "engine/salvage_pages.h"

#include <algorithm>
#include <cstring>

#include "btree/codec.h"
#include "btree/ops.h"
#include "btree/space_map.h"
#include "bufferpool/buffer_pool.h"
#include "disk/aligned_buffer.h"
#include "engine/database_impl.h"
#include "wal/batch_reader.h"
#include "wal/merge.h"
#include "wal/redo.h"
#include "wal/undo_set.h"

namespace kelda::engine {

namespace {

// A page that the device cannot read is one more kind of damage: redo goes on without it.
class TolerantStore final : public disk::PageStore {
 public:
  explicit TolerantStore(std::unique_ptr<disk::PageStore> store) : store_(std::move(store)) {}
  Result<> read(PageId page, std::byte* into) override { return tolerate(store_->read(page, into)); }
  void read_batch(std::span<const PageId> pages, std::span<std::byte* const> into, std::span<Result<>> status) override {
    store_->read_batch(pages, into, status);
    for (Result<>& one : status) one = tolerate(std::move(one));
  }
  Result<> write(std::span<const disk::PageWrite> batch) override { return store_->write(batch); }
  Result<> sync() override { return store_->sync(); }
  void forget(std::span<const PageId> pages) override { store_->forget(pages); }
  const disk::Layout& layout() const override { return store_->layout(); }
  Result<RepairReport> repair() override { return store_->repair(); }

 private:
  static Result<> tolerate(Result<> read) {
    if (read || read.failed_with(Code::kNotFound)) return read;
    return Error(Code::kCorrupt, read.error().message());
  }
  std::unique_ptr<disk::PageStore> store_;
};

class PageRedo final : public wal::RecoveryHandler {
 public:
  Result<> redo(std::uint8_t op, PageId page, std::byte* data, Bytes payload) override {
    return btree::redo_change(op, page, data, payload);
  }
  bool redo_overwrites(std::uint8_t op) const override { return btree::change_overwrites(op); }
  // Roll-back is by old values (take_undo), not by changing trees that may be damaged.
  Result<> undo(wal::TxnLog&, Lsn, Bytes) override { return Code::kUnsupported; }
};

// Counts at the redo point (records of kind counts) and the changes since.
class CountSum {
 public:
  CountSum(Lsn redo_lsn, std::unordered_map<std::uint64_t, std::int64_t>& counts) : redo_lsn_(redo_lsn), counts_(counts) {}
  void add(const wal::RecordView& record) {
    if (record.count().delta != 0) counts_[record.count().tree.value] += record.count().delta;
    btree::Reader body(record.body());
    if (record.kind() == wal::RecordKind::kCheckpoint && record.lsn() == redo_lsn_) {
      checkpoint_seen_ = true;
      promised_ = body.number<std::uint64_t>();
    }
    if (record.kind() == wal::RecordKind::kCheckpointEnd && Lsn{body.number<std::uint64_t>()} == redo_lsn_) copies_seen_ = true;
    if (record.kind() != wal::RecordKind::kCounts || Lsn{body.number<std::uint64_t>()} != redo_lsn_) return;
    for (; !body.at_end(); ++seen_) {
      const auto tree = body.number<std::uint64_t>();
      counts_[tree] += body.number<std::int64_t>();
    }
  }
  bool checkpoint_seen() const { return checkpoint_seen_; }
  bool copies_seen() const { return copies_seen_; }
  bool complete() const { return checkpoint_seen_ && seen_ == promised_; }

 private:
  const Lsn redo_lsn_;
  std::unordered_map<std::uint64_t, std::int64_t>& counts_;
  bool checkpoint_seen_ = false, copies_seen_ = false;
  std::uint64_t promised_ = 0, seen_ = 0;
};

}  // namespace

Result<std::unique_ptr<SalvagePages>> SalvagePages::open(std::unique_ptr<blockdev::BlockDevice> device,
                                                         const SalvageOptions& options, SalvageReport& report) {
  std::unique_ptr<SalvagePages> pages(new SalvagePages(report));
  pages->superblock_.emplace(TRY(disk::Superblock::read(*device)));
  report.layout = pages->layout();
  report.superblock_copies = pages->superblock_->valid_copies();
  report.was_clean = pages->superblock_->checkpoint().clean;
  pages->device_ = std::make_unique<blockdev::OverlayDevice>(std::move(device));
  pages->store_ = std::make_unique<TolerantStore>(disk::make_double_write_store(*pages->device_, report.layout));
  // Without it torn pages do not verify, and are named like any other damage.
  if (auto repaired = pages->store_->repair()) report.torn_pages_repaired = repaired->pages_repaired;
  TRY(pages->apply_log(options));
  return pages;
}

Result<> SalvagePages::apply_log(const SalvageOptions& options) {
  const disk::CheckpointInfo& checkpoint = superblock_->checkpoint();
  const MemoryPlan plan = TRY(plan_memory(options.memory_bytes));
  const std::uint64_t frames = std::min(plan.pool_frames, std::max(page_count(), bufferpool::BufferPool::kMinFrames));
  auto pool = TRY(bufferpool::BufferPool::create({.frame_count = frames, .page_count = page_count()}, *store_));
  PageRedo handler;
  wal::Redo redo(*pool, handler);
  wal::UndoSet undo;
  CountSum counts(checkpoint.redo_lsn, counts_);
  wal::BatchReader reader(*device_, layout(), checkpoint);
  Lsn next = checkpoint.redo_lsn;
  const auto visit = [&](const wal::RecordView& record) -> Result<> {
    TRY(redo.apply(record));
    TRY(undo.add(record));
    counts.add(record);
    ++report_.log_records;
    next = Lsn{record.lsn().value + 1};
    return {};
  };
  const auto on_group = [&](std::span<const wal::RecordView> records) { redo.look_ahead(records); };
  const auto read = wal::for_each_record(reader, checkpoint.redo_lsn, visit, on_group);
  TRY(pool->health());
  report_.state_lsn = next;
  const bool fresh = checkpoint.redo_lsn == Lsn{1} && checkpoint.batch_sequence == 1;
  if (!read) {
    report_.log_damage = read.error().message();
  } else if (!fresh && !counts.complete()) {
    report_.log_damage = "the log is damaged: it ends at record " + std::to_string(next.value) + ", inside the last checkpoint";
  }
  if (report_.was_clean && !report_.log_damage.empty()) {
    // Nothing was open and everything is in the pages: what the log says besides is not needed.
    report_.log_damage.clear();
    report_.state_lsn = Lsn{~std::uint64_t{0}};
  } else if (!fresh && !counts.copies_seen()) {
    report_.losers_unknown = !report_.was_clean;
  }
  counts_known_ = report_.log_damage.empty() && (fresh || counts.complete()) && undo.open().empty();
  behind_ = redo.baseless();
  for (const auto& [id, entries] : undo.open()) {
    ++report_.transactions_undone;
    for (const auto& [lsn, bytes] : entries) take_undo(bytes);
  }
  return pool->write_back_all();  // to the overlay
}

// Entries come in the order in which they were made: the first for a key is what was there before the transaction.
void SalvagePages::take_undo(Bytes undo) {
  btree::Reader in(undo);
  const auto kind = in.number<btree::UndoKind>();
  if (kind == btree::UndoKind::kAllocated) return;
  const std::uint64_t tree = in.varint();
  in.varint();  // root
  if (kind == btree::UndoKind::kTreeCreated) {
    if (in.ok()) made_trees_.insert(tree);
    return;
  }
  const std::string key(as_view(in.take(in.varint())));
  const std::string old(as_view(in.rest()));
  if (!in.ok()) return;
  using Kind = OldValue::Kind;
  const Kind was = kind == btree::UndoKind::kWasAbsent ? Kind::kAbsent : kind == btree::UndoKind::kWasInline ? Kind::kInline : Kind::kOverflow;
  old_values_[tree].try_emplace(key, OldValue{was, old});
}

Result<> SalvagePages::judge(PageId page, Result<> read) const {
  if (!read) return Error(Code::kCorrupt, read.error().message());
  if (const auto found = behind_.find(page); found != behind_.end()) {
    return Error(Code::kCorrupt, "is behind the log: " + found->second);
  }
  return {};
}

Result<> SalvagePages::read(PageId page, std::byte* into) {
  ++report_.pages_read;
  return judge(page, store_->read(page, into));
}

void SalvagePages::read_batch(std::span<const PageId> pages, std::span<std::byte* const> into, std::span<Result<>> status) {
  report_.pages_read += pages.size();
  store_->read_batch(pages, into, status);
  for (std::size_t i = 0; i < pages.size(); ++i) status[i] = judge(pages[i], std::move(status[i]));
}

std::optional<bool> SalvagePages::in_use(PageId page) {
  const PageId map_page = btree::map_of(page);
  auto [found, fresh] = maps_.try_emplace(map_page.value);
  Map& map = found->second;
  if (fresh) {
    disk::AlignedBuffer buffer(kPageBytes);
    const auto bytes = buffer.span();
    map.usable = read(map_page, bytes.data()) && btree::is_space_map(bytes.data()) && !is_ahead(bytes.data());
    if (map.usable) map.bytes.assign(bytes.begin(), bytes.end());
  }
  if (!map.usable) return std::nullopt;
  return btree::test_bit(map.bytes.data(), btree::bit_of(page));
}

std::optional<std::int64_t> SalvagePages::counted(TreeId tree) const {
  if (!counts_known_) return std::nullopt;
  const auto found = counts_.find(tree.value);
  return found == counts_.end() ? 0 : found->second;
}

}  // namespace kelda::engine
