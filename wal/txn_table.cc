// A list of transactions a shard.
#include "wal/txn_table.h"

#include <mutex>

#include "common/assert.h"

namespace kelda::wal {

void TxnTable::enter(TxnLog& txn) {
  if (txn.in_table) return;
  txn.table_shard = runtime::Core::current().index() % shards_.size();
  Shard& shard = shards_[txn.table_shard];
  std::scoped_lock guard(shard.latch);
  txn.table_prev = nullptr;
  txn.table_next = shard.head;
  if (shard.head != nullptr) shard.head->table_prev = &txn;
  shard.head = &txn;
  txn.in_table = true;
}

void TxnTable::leave(TxnLog& txn) {
  if (!txn.in_table) return;
  Shard& shard = shards_[txn.table_shard];
  std::scoped_lock guard(shard.latch);
  (txn.table_prev != nullptr ? txn.table_prev->table_next : shard.head) = txn.table_next;
  if (txn.table_next != nullptr) txn.table_next->table_prev = txn.table_prev;
  txn.table_prev = txn.table_next = nullptr;
  txn.in_table = false;
}

void TxnTable::for_each(FunctionRef<void(const TxnLog&)> visit) {
  for (Shard& shard : shards_) {
    std::scoped_lock guard(shard.latch);
    for (TxnLog* txn = shard.head; txn != nullptr; txn = txn->table_next) {
      std::scoped_lock own(txn->latch);
      visit(*txn);
    }
  }
}

bool TxnTable::empty() {
  for (Shard& shard : shards_) {
    std::scoped_lock guard(shard.latch);
    if (shard.head != nullptr) return false;
  }
  return true;
}

}  // namespace kelda::wal
