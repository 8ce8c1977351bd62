// Copies of pages on their way to the store. There is a fixed number of them, so that their memory is bounded; who holds
// one waits for the log and the store, never for another batch, and only a checkpoint's sweep waits for a latch.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "disk/aligned_buffer.h"
#include "disk/page_store.h"
#include "runtime/sync.h"

namespace kelda::bufferpool {

class WriteBatch {
 public:
  static constexpr std::size_t kMaxPages = 64;
  static_assert(kMaxPages <= disk::PageStore::kMaxBatchPages);

  explicit WriteBatch(std::size_t capacity) : copies_(capacity * kPageBytes), capacity_(capacity) {}
  bool full() const { return count_ == capacity_; }
  bool empty() const { return count_ == 0; }
  std::byte* add(PageId page) {
    std::byte* copy = copies_.data() + count_ * kPageBytes;
    writes_[count_++] = {page, copy};
    return copy;
  }
  std::span<const disk::PageWrite> writes() const { return {writes_.data(), count_}; }
  Lsn max_lsn() const;
  void clear() { count_ = 0; }

 private:
  disk::AlignedBuffer copies_;
  std::array<disk::PageWrite, kMaxPages> writes_;
  std::size_t capacity_, count_ = 0;
};

class WriteBatchPool {
 public:
  WriteBatchPool(std::size_t batch_count, std::size_t batch_pages) : left_to_make_(batch_count), batch_pages_(batch_pages) {}

  // Gives the batch back at its end.
  struct GiveBack {
    WriteBatchPool* pool;
    void operator()(WriteBatch* batch) const { pool->give_back(batch); }
  };
  using Lease = std::unique_ptr<WriteBatch, GiveBack>;
  Lease take();  // waits for one

 private:
  void give_back(WriteBatch* batch);

  runtime::SpinLatch latch_;
  runtime::WaitQueue waiters_;
  std::vector<std::unique_ptr<WriteBatch>> free_;
  std::size_t left_to_make_;
  const std::size_t batch_pages_;
};

}  // namespace kelda::bufferpool
