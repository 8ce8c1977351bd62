// The transactions that have logged something and are not over.
//
// Contract: a transaction enters before it takes its first LSN and leaves after its last. A checkpoint that fixed its LSN
// C and then visits the table therefore meets every transaction with a record below C; one that it does not meet has
// none. Visiting takes the transaction's own latch, which the owner holds from before it takes an LSN until its undo
// entry is in place: so a visit sees the entries of all records below C.
//
// Latch order: shard, then transaction, then log buffer.
#pragma once

#include <array>

#include "common/function_ref.h"
#include "runtime/sync.h"
#include "wal/log.h"

namespace kelda::wal {

class TxnTable {
 public:
  void enter(TxnLog& txn);  // nothing if it is in
  void leave(TxnLog& txn);  // nothing if it is not in
  // Calls `visit` with the latches of the shard and of the transaction held.
  void for_each(FunctionRef<void(const TxnLog&)> visit);
  bool empty();

 private:
  struct Shard {
    runtime::SpinLatch latch;
    TxnLog* head = nullptr;
  };
  std::array<Shard, 16> shards_;
};

}  // namespace kelda::wal
