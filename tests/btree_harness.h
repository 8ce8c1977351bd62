// Trees over the real log, pool and page store on a simulated disk, and a model to compare them with.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "blockdev/memory_sim.h"
#include "btree/btree.h"
#include "btree/space.h"
#include "bufferpool/buffer_pool.h"
#include "disk/page_store.h"
#include "disk/superblock.h"
#include "runtime/core.h"
#include "runtime/core_sim.h"
#include "wal/log.h"

namespace kelda::btree {

inline constexpr TreeId kTestTree{5};
inline constexpr PageId kTestRoot{1};

struct DbOptions {
  std::uint64_t frames = 2048;
};

// Everything from the disk up to one tree at a fixed root.
struct Db {
  explicit Db(blockdev::BlockDevice& d, disk::Superblock s) : device(d), superblock(std::move(s)) {}
  blockdev::BlockDevice& device;
  disk::Superblock superblock;
  std::unique_ptr<disk::PageStore> store;
  std::unique_ptr<bufferpool::BufferPool> pool;
  std::unique_ptr<wal::Log> log;
  std::unique_ptr<Space> space;
  std::unique_ptr<TreeRecovery> recovery;
  wal::RecoveryReport report;

  TreeEnv env() { return {*pool, *log, *space}; }
  BTree tree() { return {env(), kTestTree, kTestRoot}; }

  static Result<std::unique_ptr<Db>> open(blockdev::BlockDevice& device, const DbOptions& options = {});
  // The tree is sound, and exactly its pages (and those of `more`) are in use.
  Result<BTree::CheckReport> check(std::vector<BTree> more = {});
  Result<std::map<std::string, std::string>> contents();
};

struct Txn {
  explicit Txn(Db& d) : db(d) { db.log->begin(txn.log); }
  Db& db;
  TreeTxn txn;
  Result<Lsn> commit() { return btree::commit(db.env(), txn); }
  Result<> commit_durably() { return db.log->wait_commit(TRY(commit())); }
  Result<> roll_back() { return btree::roll_back(db.env(), txn, *db.recovery); }
};

std::unique_ptr<blockdev::MemoryDevice> new_disk(std::uint64_t size_bytes = 64_MiB, std::uint64_t log_bytes = 8_MiB);

// Keys with shared prefixes, some of them long; values from nothing to `max_value_bytes`, mostly short.
std::string random_key(std::mt19937_64& random, unsigned spread = 400);
std::string random_value(std::mt19937_64& random, std::size_t max_value_bytes);

#define ASSERT_OK(...)                                                  \
  do {                                                                  \
    const auto& kelda_ok = (__VA_ARGS__);                               \
    ASSERT_TRUE(kelda_ok.has_value()) << kelda_ok.error().to_string();  \
  } while (false)

}  // namespace kelda::btree
