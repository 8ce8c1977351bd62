// Page by page, record by record.
#include "wal/redo.h"

#include <algorithm>

#include "common/planted_bug.h"
#include "disk/layout.h"

namespace kelda::wal {
namespace {

constexpr std::size_t kMostAhead = 512;  // pages

std::string describe(PageId page, Lsn lsn) {
  return "redo of log record " + std::to_string(lsn.value) + " on page " + std::to_string(page.value);
}

}  // namespace

bool Redo::changed_by_this_record(PageId page) const {
  return std::find(changed_.begin(), changed_.end(), page) != changed_.end();
}

Result<> Redo::apply(const RecordView& record) {
  changed_.clear();
  read_ahead(record.lsn());
  std::size_t offset = 0;
  for (std::uint32_t i = 0; i < record.change_count(); ++i) TRY(apply_change(record.lsn(), record.change_at(offset)));
  return {};
}

Result<> Redo::apply_change(Lsn lsn, const ChangeView& change) {
  if (handler_.redo_overwrites(change.op)) return overwrite(lsn, change);
  if (baseless_.contains(change.page)) return {};
  auto guard = bufferpool::ExclusiveGuard::take(pool_, change.page);
  if (!guard) {
    if (guard.failed_with(Code::kCorrupt) || guard.failed_with(Code::kNotFound)) {
      baseless_.emplace(change.page, describe(change.page, lsn) + ": " + guard.error().to_string());
      return {};
    }
    return std::move(guard).error().with_context(describe(change.page, lsn));
  }
  if (!changed_by_this_record(change.page)) {
    const Lsn at{planted(Bug::kRedoSkipsLsnCheck) ? change.prev_lsn.value : disk::header_of(guard->data()).lsn};
    if (at >= lsn) return {};
    if (at != change.prev_lsn) {
      baseless_.emplace(change.page, describe(change.page, lsn) + ": the page has LSN " + std::to_string(at.value) + " instead of " +
                                         std::to_string(change.prev_lsn.value));
      return {};
    }
  }
  return run_handler(lsn, change, *guard);
}

Result<> Redo::overwrite(Lsn lsn, const ChangeView& change) {
  auto guard = TRY(bufferpool::ExclusiveGuard::take_fresh(pool_, change.page));
  baseless_.erase(change.page);
  return run_handler(lsn, change, guard);
}

Result<> Redo::run_handler(Lsn lsn, const ChangeView& change, bufferpool::ExclusiveGuard& guard) {
  auto done = handler_.redo(change.op, change.page, guard.data(), change.payload);
  if (!done) return std::move(done).error().with_context(describe(change.page, lsn));
  guard.mark_dirty(lsn);
  if (!changed_by_this_record(change.page)) changed_.push_back(change.page);
  ++applied_changes_;
  return {};
}

void Redo::look_ahead(std::span<const RecordView> records) {
  wanted_.clear();
  reached_ = asked_ = 0;
  for (const RecordView& record : records) {
    std::size_t offset = 0;
    for (std::uint32_t i = 0; i < record.change_count(); ++i) {
      const ChangeView change = record.change_at(offset);
      if (!handler_.redo_overwrites(change.op)) wanted_.push_back({record.lsn(), change.page});
    }
  }
}

// Keeps at least half of `most` pages asked for beyond the record at hand, so that the device is never without work.
void Redo::read_ahead(Lsn lsn) {
  while (reached_ < wanted_.size() && wanted_[reached_].lsn < lsn) ++reached_;
  // A small part of the pool: what is read too early is evicted before its turn.
  const std::size_t most = std::min<std::size_t>(pool_.frame_count() / 8, kMostAhead);
  asked_ = std::max(asked_, reached_);
  if (asked_ == wanted_.size() || asked_ - reached_ > most / 2) return;
  const std::size_t end = std::min(wanted_.size(), reached_ + most);
  std::vector<PageId> pages;
  for (; asked_ < end; ++asked_) {
    if (!baseless_.contains(wanted_[asked_].page)) pages.push_back(wanted_[asked_].page);
  }
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  pool_.read_ahead(pages);
}

Result<> Redo::check_bases() {
  for (const auto& [page, reason] : baseless_) {
    if (TRY(handler_.page_in_use(page))) return Error(Code::kCorrupt, reason + "; the page is in use");
  }
  return {};
}

}  // namespace kelda::wal
