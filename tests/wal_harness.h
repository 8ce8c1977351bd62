// A small owner of pages for the log's tests: 64-bit counters that are added to in transactions, on a simulated disk
// under the real pool and the real page store.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "blockdev/memory_sim.h"
#include "bufferpool/buffer_pool.h"
#include "disk/page_store.h"
#include "disk/superblock.h"
#include "runtime/core.h"
#include "wal/log.h"

namespace kelda::wal {

inline constexpr std::uint32_t kCountersPerPage = (kPageBytes - 64) / 8;

// Where a counter lies.
struct Slot {
  PageId page;
  std::uint32_t index = 0;
};

class CounterPages final : public RecoveryHandler {
 public:
  enum Op : std::uint8_t { kFormat = 1, kSet = 2, kNoise = 3, kFree = 4 };
  CounterPages(bufferpool::BufferPool& pool, Log& log) : pool_(pool), log_(log) {}

  Result<> format(PageId page);
  // Logs that the page is free (in a bitmap on page `map`) and drops it unwritten.
  Result<> free(PageId map, PageId page);
  // Where free() notes pages; kNoPage: every page is in use.
  PageId free_map = kNoPage;
  // Logical change with logical undo; `keys` goes to the count of tree 7.
  Result<> add(TxnLog& txn, Slot slot, std::int64_t delta, std::int32_t keys = 0);
  Result<std::int64_t> get(Slot slot);
  // A redo-only record of about this size.
  Result<Lsn> noise(PageId page, std::uint64_t bytes);
  Result<Lsn> commit(TxnLog& txn);
  Result<> roll_back(TxnLog& txn);
  // Commits and waits.
  Result<> commit_durably(TxnLog& txn);

  Result<> redo(std::uint8_t op, PageId page, std::byte* data, Bytes payload) override;
  bool redo_overwrites(std::uint8_t op) const override { return op == kFormat; }
  Result<bool> page_in_use(PageId page) override;
  Result<> undo(TxnLog& txn, Lsn lsn, Bytes undo) override;

 private:
  Result<> change(TxnLog& txn, Slot slot, std::int64_t delta, std::int32_t keys, Lsn undo_next);
  bufferpool::BufferPool& pool_;
  Log& log_;
};

inline constexpr TreeId kTree{7};

struct DbOptions {
  LogOptions log = {};
  std::uint64_t frames = 512;
  PageId free_map = kNoPage;
};

// Everything between a device and the counters.
struct Db {
  blockdev::BlockDevice& device;
  disk::Superblock superblock;
  std::unique_ptr<disk::PageStore> store;
  std::unique_ptr<bufferpool::BufferPool> pool;
  std::unique_ptr<Log> log;
  std::unique_ptr<CounterPages> pages;
  RecoveryReport report;

  static Result<std::unique_ptr<Db>> open(blockdev::BlockDevice& device, const DbOptions& options = {});
  // And page 1 formatted, for counters.
  static Result<std::unique_ptr<Db>> open_with_page(blockdev::BlockDevice& device, const DbOptions& options = {});
};

struct OpenTxn : TxnLog {
  explicit OpenTxn(Db& db) { db.log->begin(*this); }
};

// A ring of 2 MiB holds one buffer, one of 8 MiB a buffer for each of four cores.
inline constexpr std::uint64_t kSmallRing = 2_MiB, kWideRing = 8_MiB;
// A formatted disk, shut down by nobody yet.
std::unique_ptr<blockdev::MemoryDevice> new_disk(blockdev::MemoryOptions options = {.size_bytes = 32_MiB, .name = "test"},
                                                 std::uint64_t log_bytes = kSmallRing);
// What a reboot finds. May be called again on the same device for another copy.
std::unique_ptr<blockdev::MemoryDevice> power_cut(blockdev::MemoryDevice& device, blockdev::Survival survival, std::uint64_t seed = 1);

#define ASSERT_OK(...)                                                                  \
  do {                                                                                  \
    const auto& kelda_ok = (__VA_ARGS__);                                               \
    ASSERT_TRUE(kelda_ok.has_value()) << kelda_ok.error().to_string();                  \
  } while (false)

}  // namespace kelda::wal
