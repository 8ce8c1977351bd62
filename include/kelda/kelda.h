// Kelda's public C++ interface: a transactional, ordered key-value database on one device.
//
// Contract
//  - All functions are thread-safe except that a Transaction or Scan is used by one fiber or thread at a time.
//  - Any thread may call; a call that waits blocks that thread (on a Kelda core: parks the fiber).
//  - Every wait for another transaction has a bound: DatabaseOptions::lock_timeout_us, or a transaction's own; at its end
//    comes kLockTimeout. A transaction belongs to the fiber or thread that called it last. Who asks for a lock that another
//    open transaction of the same fiber or thread holds would wait for itself: kSelfDeadlock, at once. After either error the
//    transaction is as it was before the call. Hand a transaction to another thread before the first waits for its locks.
//  - Misuse is answered: a Tree of another database or an empty one (kInvalidArgument), a transaction that is over (kAborted),
//    a scan of one, calls after close() (kClosed). A Transaction or Scan may outlive its Database: it then only answers kClosed.
//  - Errors are values; nothing throws. Code::kConflict means: roll back and run the transaction again, after a pause that is
//    random and grows, or transactions that met once meet again.
//  - A commit is acknowledged (commit() returns, or wait_durable() of its Lsn does) only after its log records, and those
//    it depends on, are on the device and the device was flushed.
//  - After a failed write or flush nothing is acknowledged: commits, and reads of what is not durable, return kFailed with the
//    cause, as health() does. Other reads go on as far as they can. Open the database again to recover.
//
// Isolation: serializable by strict two-phase locking of keys (hashed) and whole trees (scans). A request that might close a
// cycle of waits gets kConflict after a short wait instead; lock_keys() takes many keys in an order that does so only to let another pass.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/function_ref.h"
#include "common/result.h"
#include "common/types.h"

namespace kelda {

namespace blockdev {
class BlockDevice;
}
namespace engine {
class DatabaseImpl;
}

enum class DurabilityMode : std::uint8_t { kFlush, kNone };

// Verifies the disk in the background of traffic.
struct ScrubOptions {
  std::uint64_t interval_s = 0;  // from start to start; the first run begins after five minutes at most. 0: only when asked
  std::uint64_t bytes_per_s = 8ull << 20;
  // Told of each damage once, on the database's background core.
  std::function<void(const std::string&)> report = {};
};

struct ScrubStatus {
  bool running = false, last_run_complete = false;
  std::uint64_t interval_s = 0, bytes_per_s = 0;
  std::uint64_t runs = 0;
  std::int64_t last_start_us = 0, last_end_us = 0;  // since 1970; 0: never
  // Of the run under way, or the last one. Unsettled: changed or written whenever it was looked at.
  std::uint64_t pages_total = 0, pages_checked = 0, pages_unsettled = 0, errors = 0, repaired = 0;
  std::uint64_t total_errors = 0, total_repaired = 0;  // since the database was opened
  std::int64_t last_error_page = -1;                   // -1: none yet, or it concerned no page
  std::string last_error;
};

// For lock_timeout_us: wait for as long as it takes.
inline constexpr std::uint64_t kNoLockTimeout = ~std::uint64_t{0};

struct DatabaseOptions {
  // Bound of all memory the engine takes: pages, log buffers, locks. The pool gets what the rest leaves.
  std::uint64_t memory_bytes = 256ull << 20;
  // kFlush refuses a device that cannot flush (kNoFlush).
  DurabilityMode durability = DurabilityMode::kFlush;
  bool create_if_blank = false;  // format a blank device
  bool force_create = false;     // format whatever is there
  // Called now and then during a long recovery, with done and total bytes of log.
  void (*progress)(std::uint64_t done, std::uint64_t total) = nullptr;
  ScrubOptions scrub = {};
  // The longest that one call waits for what other open transactions hold: locks, and their share of the log. Then kLockTimeout.
  // 0: not at all.
  std::uint64_t lock_timeout_us = 5'000'000;
};

struct OpenReport {
  bool created = false, was_clean = false;
  std::uint64_t log_bytes = 0, records = 0, undone_transactions = 0, pages_repaired = 0, duration_us = 0;
  std::uint64_t grown_from_bytes = 0;  // the disk's size before, if the device was larger than it; else 0
};

struct DatabaseStats {
  std::uint64_t commits, rollbacks, conflicts, lock_waits;
  std::uint64_t pool_frames, pool_free, pool_resident, pool_dirty, pool_misses, pool_evictions;
  std::uint64_t log_bytes_appended, log_batches, log_used_bytes, log_capacity_bytes;
  Lsn log_next, log_durable;
  std::uint64_t device_reads, device_writes, device_flushes, device_read_bytes, device_write_bytes;
  std::uint64_t page_count, used_pages;
};

// A named tree of one database. Cheap to copy; valid while that database is open.
class Tree {
 public:
  Tree() = default;
  // For implementations of Database; `entry` is theirs, `database` the number by which they know their own trees.
  Tree(TreeId id, void* entry, std::uint64_t database = 0) : id_(id), entry_(entry), database_(database) {}
  TreeId id() const { return id_; }
  void* entry() const { return entry_; }
  std::uint64_t database() const { return database_; }

 private:
  friend class engine::DatabaseImpl;
  TreeId id_;
  void* entry_ = nullptr;
  std::uint64_t database_ = 0;
};

enum class PutIf : std::uint8_t { kAlways, kAbsent, kPresent };

class Scan {
 public:
  virtual ~Scan() = default;
  // Position on the first key >= key (empty: the first of all), or the last key <= key (empty: the last of all).
  virtual Result<bool> seek(std::string_view key) = 0;
  virtual Result<bool> seek_back(std::string_view key) = 0;
  virtual Result<bool> next() = 0;
  virtual Result<bool> prev() = 0;
  virtual std::string_view key() const = 0;         // until the next call; empty when the scan is on no key
  virtual Result<std::string_view> value() = 0;     // until the next call
};

class Transaction {
 public:
  // An open transaction is rolled back.
  virtual ~Transaction() = default;

  // Instead of DatabaseOptions::lock_timeout_us, for the calls that follow.
  virtual void set_lock_timeout_us(std::uint64_t timeout_us) = 0;

  virtual Result<bool> get(Tree tree, std::string_view key, std::string& value) = 0;
  // As get, but locks the key for a later write: no upgrade conflict.
  virtual Result<bool> get_for_update(Tree tree, std::string_view key, std::string& value) = 0;
  // False when the condition did not hold (nothing changed).
  virtual Result<bool> put(Tree tree, std::string_view key, std::string_view value, PutIf condition = PutIf::kAlways) = 0;
  virtual Result<bool> remove(Tree tree, std::string_view key) = 0;  // false: was absent
  // Locks keys for writing, in the order that cannot deadlock with others who do the same. Call it first in a transaction
  // whose keys are known.
  virtual Result<> lock_keys(Tree tree, std::span<const std::string_view> keys) = 0;
  // Locks the whole tree: shared (for a repeatable scan) or exclusive.
  virtual Result<> lock_tree(Tree tree, bool exclusive) = 0;
  // Takes a shared lock on the tree; sees this transaction's own writes.
  virtual Result<std::unique_ptr<Scan>> scan(Tree tree) = 0;
  // Empties the tree, as part of the transaction. Constant time; pages are reclaimed in the background after commit.
  virtual Result<> clear(Tree tree) = 0;

  // Undoes what came after; the transaction stays open.
  virtual Result<std::uint64_t> savepoint() = 0;
  virtual Result<> roll_back_to(std::uint64_t savepoint) = 0;

  // Waits for durability. After any return the transaction is over.
  virtual Result<> commit() = 0;
  // Commits without waiting; the result (0: read-only and all it read is durable) goes to Database::wait_durable before
  // anyone is told. Locks are released at once: whoever reads the new values waits for the same or a later LSN.
  virtual Result<Lsn> commit_no_wait() = 0;
  virtual Result<> roll_back() = 0;
};

class Database {
 public:
  // Opens (or creates, see options) the database on a device. Takes the device over. Runs recovery.
  static Result<std::unique_ptr<Database>> open(std::unique_ptr<blockdev::BlockDevice> device,
                                                const DatabaseOptions& options, OpenReport* report = nullptr);
  // Opens a path (hosted) or /dev/vdX (bare).
  static Result<std::unique_ptr<Database>> open(const std::string& device_name, std::uint64_t create_bytes,
                                                const DatabaseOptions& options, OpenReport* report = nullptr);
  // Closes without a checkpoint if close() was not called: the next open recovers, and undoes the transactions that were open.
  virtual ~Database() = default;
  // Checkpoints and marks the disk clean. kBusy while a transaction is open: the database then stays open. After any other
  // error it is closed all the same, and the next open recovers. Closing twice answers as the first time.
  virtual Result<> close() = 0;

  // Opens a named tree, creating it (durably) if asked.
  virtual Result<Tree> tree(std::string_view name, bool create) = 0;
  virtual Result<std::vector<std::string>> tree_names() = 0;
  virtual Result<> drop_tree(std::string_view name) = 0;

  virtual std::unique_ptr<Transaction> begin() = 0;

  // One read outside a transaction: committed data, no lock kept. `lsn`, if given, gets the LSN that must be durable before
  // the value is shown to anyone (0: it is already); without it the call waits itself.
  virtual Result<bool> get(Tree tree, std::string_view key, std::string& value, Lsn* lsn = nullptr) = 0;
  // One write in its own transaction, durable on return.
  virtual Result<> put(Tree tree, std::string_view key, std::string_view value) = 0;
  virtual Result<bool> remove(Tree tree, std::string_view key) = 0;

  virtual Result<> wait_durable(Lsn lsn) = 0;
  // Keys in the tree, in constant time; counts open transactions' changes too. 0 for what is not a tree of this database.
  virtual std::uint64_t count(Tree tree) const = 0;
  virtual Result<> checkpoint() = 0;
  virtual Result<> health() const = 0;
  virtual DatabaseStats stats() const = 0;
  virtual const blockdev::BlockDevice& device() const = 0;

  // Starts a scrub now (kBusy: one is running); ends the one under way.
  virtual Result<> start_scrub() { return Code::kUnsupported; }
  virtual void stop_scrub() {}
  virtual ScrubStatus scrub_status() const { return {}; }
};

}  // namespace kelda
