// What a database does on its own: free frames, checkpoints, scrubs, and the reclaiming of dropped trees.
#include <mutex>

#include "engine/transaction.h"

namespace kelda::engine {

namespace {
constexpr std::uint32_t kPagesPerStep = 64;
constexpr runtime::TimeNs kQuietNs = 1'000'000'000;
constexpr int kMostQuietRounds = 30;
}

Result<> DatabaseImpl::start_background() {
  runtime::Core& core = runtime::Core::current();
  if (core.in_fiber()) return spawn_background(core);
  // A plain thread's core runs only while that thread waits: the background gets a thread whose only work is to wait.
  Result<> spawned;
  runtime::Event started;
  background_thread_ = std::thread([&, this] {
    spawned = spawn_background(runtime::Core::current());
    started.set();
    background_.wait();
  });
  started.wait();
  return spawned;
}

Result<> DatabaseImpl::spawn_background(runtime::Core& core) {
  const auto start = [&](const char* name, void (*body)(DatabaseImpl&)) -> Result<> {
    return runtime::spawn_counted(core, background_, [this, body] { body(*this); }, {.name = name});
  };
  TRY(start("frames", [](DatabaseImpl& db) { db.pool_->provide_frames(); }));
  TRY(start("checkpoint", [](DatabaseImpl& db) { db.log_->checkpoint_loop(); }));
  TRY(start("scrub", [](DatabaseImpl& db) { db.scrubber_->run(); }));
  TRY(start("discard", [](DatabaseImpl& db) { db.discard_loop(); }));
  return start("reclaim", [](DatabaseImpl& db) { db.reclaim_loop(); });
}

void DatabaseImpl::stop_background() {
  if (stopping_.exchange(true)) return;
  if (log_ == nullptr || recovery_ == nullptr) return;
  pool_->stop();
  log_->stop();
  if (scrubber_ != nullptr) scrubber_->stop();
  reclaim_wanted_.set();
  stop_wanted_.set();
  space_->discard_wanted().set();
  if (background_thread_.joinable()) {
    background_thread_.join();
  } else {
    background_.wait();
  }
}

Result<> DatabaseImpl::start_scrub() {
  TRY(usable());
  if (scrubber_ == nullptr) return Error(Code::kUnsupported, "this database was opened without background work");
  return scrubber_->start();
}

void DatabaseImpl::stop_scrub() {
  if (scrubber_ != nullptr) scrubber_->cancel();
}

ScrubStatus DatabaseImpl::scrub_status() const { return scrubber_ == nullptr ? ScrubStatus{} : scrubber_->status(); }

void DatabaseImpl::tree_dropped(TreeRef ref) {
  {
    std::scoped_lock guard(entries_mutex_);
    dropped_.push_back(ref);
  }
  reclaim_wanted_.set();
}

void DatabaseImpl::reclaim_loop() {
  while (!stopping_) {
    TreeRef ref;
    {
      std::scoped_lock guard(entries_mutex_);
      if (!dropped_.empty()) ref = dropped_.front();
    }
    if (ref.id.value == 0) {
      reclaim_wanted_.wait();
      reclaim_wanted_.reset();
      continue;
    }
    const Result<> done = reclaim(ref);
    if (done.failed_with(Code::kConflict) || done.failed_with(Code::kLockTimeout)) continue;
    // An error stays visible: the drop record is still in the catalog, so the next start tries again, and a damaged page
    // is what `kelda check` reports.
    std::scoped_lock guard(entries_mutex_);
    dropped_.pop_front();
  }
}

// Much that was freed is worth a checkpoint of its own, so that a file on a thin host becomes small again when nobody
// writes; but not while more is being freed.
void DatabaseImpl::discard_loop() {
  runtime::Event& wanted = space_->discard_wanted();
  while (!stopping_) {
    wanted.wait();
    wanted.reset();
    std::uint64_t before = 0;
    for (int round = 0; round < kMostQuietRounds && !stopping_; ++round) {
      const std::uint64_t waiting = space_->waiting_for_discard();
      if (waiting == before || waiting < btree::Space::kWorthACheckpoint) break;
      before = waiting;
      stop_wanted_.wait_until(runtime::now_ns() + kQuietNs);
    }
    if (stopping_) return;
    if (space_->waiting_for_discard() >= btree::Space::kWorthACheckpoint && !log_->checkpoint()) return;
    while (!stopping_ && space_->discard_some()) runtime::Core::current().yield();
  }
}

void DatabaseImpl::discard_freed(runtime::TimeNs deadline_ns) {
  while (runtime::now_ns() < deadline_ns && space_->discard_some()) runtime::Core::current().yield();
}

Result<> DatabaseImpl::reclaim(TreeRef ref) {
  btree::BTree tree(env(), ref.id, ref.root);
  while (!TRY(tree.drop_some(kPagesPerStep))) {
    if (stopping_) return Error(Code::kConflict);
    runtime::Core::current().yield();
  }
  TransactionImpl txn(*this, TransactionImpl::Kind::kInternal);
  TRY(txn.erase(catalog(), dropped_key(ref.id)));
  tree.free_root(txn.tree_txn());
  log_->set_count(ref.id, 0);
  TRY(txn.commit_no_wait());
  return {};
}

}  // namespace kelda::engine
