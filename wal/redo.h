// Applies the changes of log records to pages, in LSN order.
//
// A change applies to exactly the version of the page that it met when it was made (prev_lsn): a page that is newer has
// it already; a page with any other version is not its base. The base can be missing lawfully: a page that was freed may
// be dropped unwritten, and its last changes then find an older life of the page, zeroes, or nothing readable. Such
// pages are remembered, and at the end the owner is asked whether they are in use; only then it is corruption.
// A change that overwrites the page needs no base.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "common/result.h"
#include "wal/log.h"
#include "wal/record.h"

namespace kelda::wal {

class Redo {
 public:
  Redo(bufferpool::BufferPool& pool, RecoveryHandler& handler) : pool_(pool), handler_(handler) {}

  Result<> apply(const RecordView& record);
  // The records that apply() gets next, in LSN order: their pages are read some hundreds ahead of it, many at once.
  void look_ahead(std::span<const RecordView> records);
  // After the last record and RecoveryHandler::before_undo().
  Result<> check_bases();
  std::uint64_t applied_changes() const { return applied_changes_; }
  // Pages to which changes could not be applied, and why.
  const std::unordered_map<PageId, std::string>& baseless() const { return baseless_; }

 private:
  Result<> apply_change(Lsn lsn, const ChangeView& change);
  Result<> overwrite(Lsn lsn, const ChangeView& change);
  Result<> run_handler(Lsn lsn, const ChangeView& change, bufferpool::ExclusiveGuard& guard);
  bool changed_by_this_record(PageId page) const;
  void read_ahead(Lsn lsn);

  struct Wanted {
    Lsn lsn;
    PageId page;
  };

  bufferpool::BufferPool& pool_;
  RecoveryHandler& handler_;
  std::vector<PageId> changed_;  // by the record at hand: its further changes of a page find its own LSN there
  std::unordered_map<PageId, std::string> baseless_;
  std::uint64_t applied_changes_ = 0;
  std::vector<Wanted> wanted_;  // of the records that were shown to look_ahead(), by LSN
  std::size_t reached_ = 0;     // before it: records that apply() has had
  std::size_t asked_ = 0;       // before it: pages whose reading was started
};

}  // namespace kelda::wal
