// Records of many batches, in LSN order.
//
// Batch k holds LSNs in [cut(k-1), cut(k+1)) (group_flush.h). So when batch k has been read, every record below cut(k) is
// there: in batch k, or carried over from batch k-1. What is at or above cut(k) is carried over to batch k+1. A batch may
// be one commit, too little for a reader of pages to look ahead in, so batches are taken in groups of about 1 MiB and cut
// where the last one is. Memory: a group, and the records of two batches at most. After the last batch, what was carried counts up to the first missing LSN; what follows
// was never acknowledged and is dropped. The first batch written after a recovery says from which LSN on it dropped.
#pragma once

#include <span>

#include "common/function_ref.h"
#include "common/result.h"
#include "wal/batch_reader.h"
#include "wal/record.h"

namespace kelda::wal {

struct MergeEnd {
  Lsn next;                  // LSN that the next record gets
  std::uint64_t dropped = 0; // records after a gap at the end
};

// Calls `visit` for each record from `from` on. `on_group` sees the records of a group of batches (and those carried)
// before. kCorrupt when a record is missing before the end or does not parse, or a batch before the end does not verify;
// the records before it were visited.
Result<MergeEnd> for_each_record(BatchReader& reader, Lsn from, FunctionRef<Result<>(const RecordView&)> visit,
                                 FunctionRef<void(std::span<const RecordView>)> on_group);

}  // namespace kelda::wal
