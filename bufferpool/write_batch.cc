#include "bufferpool/write_batch.h"

#include <algorithm>

#include "disk/layout.h"

namespace kelda::bufferpool {

Lsn WriteBatch::max_lsn() const {
  std::uint64_t lsn = 0;
  for (const disk::PageWrite& write : writes()) lsn = std::max(lsn, disk::header_of(write.copy).lsn);
  return Lsn(lsn);
}

WriteBatchPool::Lease WriteBatchPool::take() {
  latch_.lock();
  while (free_.empty() && left_to_make_ == 0) waiters_.wait(latch_);
  std::unique_ptr<WriteBatch> batch;
  if (!free_.empty()) {
    batch = std::move(free_.back());
    free_.pop_back();
  } else {
    --left_to_make_;
  }
  latch_.unlock();
  if (!batch) batch = std::make_unique<WriteBatch>(batch_pages_);
  batch->clear();
  return Lease(batch.release(), GiveBack{this});
}

void WriteBatchPool::give_back(WriteBatch* batch) {
  latch_.lock();
  free_.emplace_back(batch);
  waiters_.wake_one();
  latch_.unlock();
}

}  // namespace kelda::bufferpool
