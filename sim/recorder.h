// Records what clients do to a store as a history that history/check.h can judge: values that occur once, and a clock
// that never shows the same time twice.
#pragma once

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

#include "history/history.h"
#include "runtime/sync.h"

namespace kelda::sim {

// Thread-safe.
class Recorder {
 public:
  history::Time tick() { return clock_.fetch_add(1) + 1; }
  history::Value new_value() { return values_.fetch_add(1) + 1; }
  history::Value last_value() const { return values_.load(); }
  // A process of its own for each client, and a new one for a client whose last outcome is unknown.
  std::uint32_t new_process() { return processes_.fetch_add(1); }

  void add(history::Transaction txn) {
    if (txn.ops.empty()) return;
    const std::scoped_lock guard(latch_);
    history_.transactions.push_back(std::move(txn));
  }
  // The store was restarted: what was under way is settled, one way or the other.
  void settle() {
    const history::Time now = tick();
    for (history::Transaction& txn : history_.transactions) {
      if (txn.outcome == history::Outcome::kUnknown) txn.end = std::min(txn.end, now);
    }
  }

  const history::History& history() const { return history_; }
  std::size_t count(history::Outcome outcome) const {
    return static_cast<std::size_t>(std::ranges::count(history_.transactions, outcome, &history::Transaction::outcome));
  }

 private:
  std::atomic<history::Time> clock_{0};
  std::atomic<history::Value> values_{0};
  std::atomic<std::uint32_t> processes_{0};
  runtime::SpinLatch latch_;
  history::History history_;
};

// One transaction as it is recorded. Ends as failed unless told otherwise.
class Recording {
 public:
  Recording(Recorder& recorder, std::uint32_t process) : recorder_(recorder), process_(process) {
    begin_ = recorder.tick();
  }
  Recording(const Recording&) = delete;
  ~Recording() { end(history::Outcome::kFailed); }

  void read(bool is_list, history::Key key, std::vector<history::Value> seen) {
    ops_.push_back({is_list ? history::OpKind::kReadList : history::OpKind::kReadRegister, key, std::move(seen)});
  }
  void wrote(bool is_list, history::Key key, history::Value value) {
    ops_.push_back({is_list ? history::OpKind::kAppend : history::OpKind::kWrite, key, {value}});
  }
  // For savepoints: what came after `count` operations was undone, so no one may ever see it.
  std::size_t op_count() const { return ops_.size(); }
  void undo_to(std::size_t count) {
    std::vector<history::Op> undone(ops_.begin() + static_cast<std::ptrdiff_t>(count), ops_.end());
    ops_.resize(count);
    recorder_.add({process_, begin_, recorder_.tick(), history::Outcome::kFailed, std::move(undone)});
  }
  void end(history::Outcome outcome) {
    if (ended_) return;
    ended_ = true;
    const history::Time end = outcome == history::Outcome::kUnknown ? history::kNever : recorder_.tick();
    recorder_.add({process_, begin_, end, outcome, std::move(ops_)});
  }

 private:
  Recorder& recorder_;
  const std::uint32_t process_;
  history::Time begin_;
  std::vector<history::Op> ops_;
  bool ended_ = false;
};

}  // namespace kelda::sim
