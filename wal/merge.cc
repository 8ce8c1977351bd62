// Groups of batches into one order.
#include "wal/merge.h"

#include <algorithm>
#include <string>
#include <vector>

namespace kelda::wal {
namespace {

constexpr std::size_t kGroupBytes = 1 << 20;

class Merge {
 public:
  Merge(Lsn from, FunctionRef<Result<>(const RecordView&)> visit) : from_(from), expected_(from), visit_(visit) {}

  // Keeps a batch's records until deliver_group().
  void add(const BatchView& batch) {
    pieces_.push_back({waiting_.size(), batch.records.size(), batch.header.sequence, batch.header.restart_lsn, batch.header.cut});
    waiting_.insert(waiting_.end(), batch.records.begin(), batch.records.end());
  }

  bool has_group() const { return waiting_.size() >= kGroupBytes; }

  // Delivers what is below the cut of the last batch (that parses).
  Result<> deliver_group(FunctionRef<void(std::span<const RecordView>)> on_group) {
    if (pieces_.empty()) return {};
    views_.clear();
    TRY(parse(carried_, "carried records"));
    std::uint64_t cut = 0;
    Result<> parsed;
    for (const Piece& piece : pieces_) {
      if (piece.restart != 0) std::erase_if(views_, [&](const RecordView& view) { return view.lsn().value >= piece.restart; });
      parsed = parse(Bytes(waiting_).subspan(piece.offset, piece.bytes), "log batch " + std::to_string(piece.sequence));
      if (!parsed) break;
      cut = piece.cut;
    }
    sort();
    on_group(views_);
    std::size_t ready = 0;
    while (ready < views_.size() && views_[ready].lsn().value < cut) TRY(deliver(views_[ready++]));
    kept_.clear();
    for (; ready < views_.size(); ++ready) {
      const Bytes raw = views_[ready].raw();
      kept_.insert(kept_.end(), raw.begin(), raw.end());
    }
    carried_.swap(kept_);
    pieces_.clear();
    waiting_.clear();
    return parsed;
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

  struct Piece {
    std::size_t offset, bytes;  // in waiting_
    std::uint64_t sequence, restart, cut;
  };

  const Lsn from_;
  Lsn expected_;
  FunctionRef<Result<>(const RecordView&)> visit_;
  std::vector<RecordView> views_;
  std::vector<Piece> pieces_;
  std::vector<std::byte> waiting_, carried_, kept_;
};

}  // namespace

Result<MergeEnd> for_each_record(BatchReader& reader, Lsn from, FunctionRef<Result<>(const RecordView&)> visit,
                                 FunctionRef<void(std::span<const RecordView>)> on_group) {
  Merge merge(from, visit);
  while (true) {
    const auto batch = reader.next();
    // What lies before a damaged batch counts, for those who save what can be saved.
    if (!batch || !*batch) {
      TRY(merge.deliver_group(on_group));
      if (!batch) return batch.error();
      return merge.finish();
    }
    merge.add(**batch);
    if (merge.has_group()) TRY(merge.deliver_group(on_group));
  }
}

}  // namespace kelda::wal
