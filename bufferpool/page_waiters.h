// Fibers that wait for a page's latch, hashed by page.
//
// A waiter sets kWaiters in the state word under its bucket's latch and queues there; whoever makes the condition true
// sees the bit in the word that its own change returned, and comes to wake. Either the waiter's bit precedes that change,
// then it is seen and the wake waits for the bucket; or it follows, then the waiter sees the changed word and does not
// queue. Pages that share a bucket wake each other for nothing: waiters look again.
#pragma once

#include <array>

#include "bufferpool/page_state.h"
#include "common/types.h"
#include "runtime/sync.h"

namespace kelda::bufferpool {

class PageWaiters {
 public:
  // Returns when (state & mask) was seen 0, or after a wake: the caller looks again.
  void wait(StateWord& state, PageId page, std::uint64_t mask);
  void wake(StateWord& state, PageId page);

 private:
  struct alignas(64) Bucket {
    runtime::SpinLatch latch;
    runtime::WaitQueue queue;
  };
  static constexpr unsigned kBucketBits = 8;
  Bucket& bucket_of(PageId page) { return buckets_[(page.value * 0x9e3779b97f4a7c15ull) >> (64 - kBucketBits)]; }

  std::array<Bucket, 1 << kBucketBits> buckets_;
};

}  // namespace kelda::bufferpool
