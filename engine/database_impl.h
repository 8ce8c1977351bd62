// The database as it is while open: layers below, catalog, locks, background work.
//
// Contract: see include/kelda/kelda.h. Order of locks: tree locks and key locks (lock_table.h) before any latch; the
// entries mutex is taken alone.
//
// Background fibers: the pool's provider of frames, the log's checkpoint loop, the scrubber, the reclaimer that frees the
// pages of dropped trees, and what gives freed pages back to the device. They run on the core that opened the database, or on a thread of their own when that core serves
// nobody (an embedding program's thread).
#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "blockdev/blockdev.h"
#include "btree/btree.h"
#include "btree/space.h"
#include "bufferpool/buffer_pool.h"
#include "bufferpool/page_map.h"
#include "common/planted_bug.h"
#include "disk/page_store.h"
#include "disk/superblock.h"
#include "engine/catalog.h"
#include "engine/lock_table.h"
#include "engine/open_transactions.h"
#include "engine/scrub.h"
#include "kelda/kelda.h"
#include "runtime/sync.h"
#include "wal/log.h"

namespace kelda::engine {

// How the memory bound is shared out.
struct MemoryPlan {
  std::uint64_t pool_frames = 0;
  std::uint64_t log_buffer_bytes = 0;
  std::uint32_t log_buffer_count = 0;
  std::uint32_t lock_buckets_log2 = 0;
};
Result<MemoryPlan> plan_memory(std::uint64_t memory_bytes);

class DatabaseImpl final : public Database {
 public:
  // kInspect: no background work, so that nothing changes but by recovery.
  enum class Purpose { kServe, kInspect };
  // Of frames and pages; another than the platform's in simulation.
  using MakePageMap = FunctionRef<Result<std::unique_ptr<bufferpool::PageMap>>(std::uint64_t, std::uint64_t)>;
  static Result<std::unique_ptr<DatabaseImpl>> open(std::unique_ptr<blockdev::BlockDevice> device,
                                                    const DatabaseOptions& options, OpenReport& report,
                                                    Purpose purpose = Purpose::kServe);
  static Result<std::unique_ptr<DatabaseImpl>> open(std::unique_ptr<blockdev::BlockDevice> device,
                                                    const DatabaseOptions& options, OpenReport& report, Purpose purpose,
                                                    MakePageMap make_page_map);
  ~DatabaseImpl() override;

  Result<> close() override;
  Result<Tree> tree(std::string_view name, bool create) override;
  Result<std::vector<std::string>> tree_names() override;
  Result<> drop_tree(std::string_view name) override;
  std::unique_ptr<Transaction> begin() override;
  Result<bool> get(Tree tree, std::string_view key, std::string& value, Lsn* lsn) override;
  Result<> put(Tree tree, std::string_view key, std::string_view value) override;
  Result<bool> remove(Tree tree, std::string_view key) override;
  Result<> wait_durable(Lsn lsn) override;
  std::uint64_t count(Tree tree) const override;
  Result<> checkpoint() override;
  Result<> health() const override;
  DatabaseStats stats() const override;
  const blockdev::BlockDevice& device() const override { return *device_; }
  Result<> start_scrub() override;
  void stop_scrub() override;
  ScrubStatus scrub_status() const override;

  // --- for transactions, the reclaimer and check ---
  btree::TreeEnv env() { return {*pool_, *log_, *space_}; }
  LockTable& locks() { return *locks_; }
  wal::Log& log() { return *log_; }
  bufferpool::BufferPool& pool() { return *pool_; }
  btree::Space& space() { return *space_; }
  disk::PageStore& store() { return *store_; }
  blockdev::BlockDevice& mutable_device() { return *device_; }
  const disk::Superblock& superblock() const { return *superblock_; }
  btree::TreeRecovery& recovery() { return *recovery_; }
  TreeEntry& catalog() { return *catalog_; }
  // Null for what is not a tree of this database: not_ours() says so.
  TreeEntry* entry_of(Tree tree) const {
    return tree.database_ == number_ ? static_cast<TreeEntry*>(tree.entry_) : nullptr;
  }
  Error not_ours(Tree tree) const;
  TreeId next_tree_id() { return TreeId{next_tree_id_.fetch_add(1, std::memory_order_relaxed)}; }
  // Kept until the database closes: readers may hold an older one.
  const TreeRef* keep_ref(TreeRef ref);
  void tree_dropped(TreeRef ref);  // its drop record has committed
  // Named and dropped trees. Nobody creates or drops one meanwhile.
  void for_each_tree(FunctionRef<void(const std::string&, const TreeRef&)> visit);
  Error not_a_tree(const TreeEntry& entry) const;

  struct Counters {
    std::atomic<std::uint64_t> commits{0}, rollbacks{0}, conflicts{0};
  };
  Counters& counters() { return counters_; }
  // A roll-back that could not be finished has left values that never were, and the log has failed: nobody may see them.
  // Called while the transaction's locks are held; whoever gets them afterwards asks.
  void undo_failed() { undo_failed_.store(true, std::memory_order_release); }
  Result<> undo_complete() const {
    if (undo_failed_.load(std::memory_order_acquire)) return log_->health();
    return {};
  }
  OpenTransactions& open_transactions() { return open_transactions_; }
  bool closed() const { return closed_.load(std::memory_order_seq_cst); }
  std::uint64_t lock_timeout_us() const { return lock_timeout_us_; }
  // Whether what `bars` tells of a transaction holds for one of the calling fiber's, besides `self`: waiting were in vain.
  bool barred_by_this_fiber(const TransactionImpl* self, FunctionRef<bool(const TransactionImpl&)> bars) {
    return !planted(Bug::kSelfDeadlockNotSeen) && open_transactions_.any_of_this_fiber(self, bars);
  }

 private:
  DatabaseImpl();

  Tree handle_of(TreeEntry& entry) const;
  Result<> usable() const;
  Result<> wait_readable(std::uint32_t bucket, runtime::TimeNs& deadline_ns);

  Result<> attach_disk(const DatabaseOptions& options, OpenReport& report);
  // `layout`: the disk's, or that of the disk as it is about to be.
  Result<> build_layers(const DatabaseOptions& options, disk::Layout layout, MakePageMap make_page_map, OpenReport& report);
  Result<> grow_disk(const disk::Layout& layout, OpenReport& report);
  Result<> recover(OpenReport& report);
  Result<> load_catalog();
  Result<> start_background();
  Result<> spawn_background(runtime::Core& core);
  void stop_background();
  void reclaim_loop();
  void discard_loop();
  // What a checkpoint made ready for it goes back to the device.
  void discard_freed(runtime::TimeNs deadline_ns);
  Result<> reclaim(TreeRef ref);

  const std::uint64_t number_;  // of this database in this process: its Trees carry it
  std::uint64_t lock_timeout_us_ = 0;
  std::unique_ptr<blockdev::BlockDevice> device_;
  std::optional<disk::Superblock> superblock_;
  std::unique_ptr<disk::PageStore> store_;
  std::unique_ptr<bufferpool::BufferPool> pool_;
  std::unique_ptr<wal::Log> log_;
  std::unique_ptr<btree::Space> space_;
  std::unique_ptr<LockTable> locks_;
  std::unique_ptr<btree::TreeRecovery> recovery_;
  std::unique_ptr<Scrubber> scrubber_;  // while the background runs

  runtime::Mutex entries_mutex_;  // guards entries_, refs_, dropped_ and the creation of trees
  std::map<std::string, std::unique_ptr<TreeEntry>, std::less<>> entries_;
  std::vector<std::unique_ptr<TreeEntry>> retired_;  // dropped while open: handles may still point here
  std::deque<TreeRef> refs_;
  std::deque<TreeRef> dropped_;
  std::unique_ptr<TreeEntry> catalog_;
  std::atomic<std::uint64_t> next_tree_id_{2};
  std::uint64_t next_ordinal_ = 1;

  Counters counters_;
  std::atomic<bool> undo_failed_{false};
  OpenTransactions open_transactions_;

  std::atomic<bool> stopping_{false};
  runtime::Event reclaim_wanted_;
  runtime::Event stop_wanted_;  // ends pauses
  runtime::Completion background_;
  std::thread background_thread_;
  std::atomic<bool> closed_{false};
  Result<> close_result_;
};

}  // namespace kelda::engine
