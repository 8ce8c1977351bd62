// Two batches at a time into one order.
#include "wal/merge.h"

#include <algorithm>
#include <string>
#include <vector>

namespace kelda::wal {
namespace {

class Merge {
 public:
  Merge(Lsn from, FunctionRef<Result<>(const RecordView&)> visit) : from_(from), expected_(from), visit_(visit) {}

  Result<> take(const BatchView& batch, FunctionRef<void(std::span<const RecordView>)> on_batch) {
    views_.clear();
    TRY(parse(carried_, "carried records"));
    if (const std::uint64_t restart = batch.header.restart_lsn; restart != 0) {
      std::erase_if(views_, [&](const RecordView& view) { return view.lsn().value >= restart; });
    }
    TRY(parse(batch.records, "log batch " + std::to_string(batch.header.sequence)));
    sort();
    on_batch(views_);
    std::size_t ready = 0;
    while (ready < views_.size() && views_[ready].lsn().value < batch.header.cut) TRY(deliver(views_[ready++]));
    kept_.clear();
    for (; ready < views_.size(); ++ready) {
      const Bytes raw = views_[ready].raw();
      kept_.insert(kept_.end(), raw.begin(), raw.end());
    }
    carried_.swap(kept_);
    return {};
  }

  Result<MergeEnd> finish() {
    views_.clear();
    TRY(parse(carried_, "carried records"));
    sort();
    std::size_t at = 0;
    for (; at < views_.size(); ++at) {
      if (views_[at].lsn() >= from_ && views_[at].lsn() != expected_) break;
      TRY(deliver(views_[at]));
    }
    return MergeEnd{expected_, views_.size() - at};
  }

 private:
  Result<> parse(Bytes records, const std::string& where) {
    while (!records.empty()) {
      const auto view = RecordView::parse(records);
      if (!view) return Error(Code::kCorrupt, "the log is damaged: a record in " + where + " has a wrong shape");
      views_.push_back(*view);
      records = records.subspan(view->bytes());
    }
    return {};
  }

  void sort() {
    std::sort(views_.begin(), views_.end(), [](const RecordView& a, const RecordView& b) { return a.lsn() < b.lsn(); });
  }

  Result<> deliver(const RecordView& view) {
    if (view.lsn() < from_) return {};
    if (view.lsn() != expected_) {
      return Error(Code::kCorrupt, "the log is damaged: record " + std::to_string(expected_.value) + " is missing, " +
                                       std::to_string(view.lsn().value) + " is there");
    }
    expected_ = Lsn{expected_.value + 1};
    return visit_(view);
  }

  const Lsn from_;
  Lsn expected_;
  FunctionRef<Result<>(const RecordView&)> visit_;
  std::vector<RecordView> views_;
  std::vector<std::byte> carried_, kept_;
};

}  // namespace

Result<MergeEnd> for_each_record(BatchReader& reader, Lsn from, FunctionRef<Result<>(const RecordView&)> visit,
                                 FunctionRef<void(std::span<const RecordView>)> on_batch) {
  Merge merge(from, visit);
  while (true) {
    const auto batch = TRY(reader.next());
    if (!batch) break;
    TRY(merge.take(*batch, on_batch));
  }
  return merge.finish();
}

}  // namespace kelda::wal
