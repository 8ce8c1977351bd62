// Pages that were unmapped and whose frames wait until every core has passed the epoch (invariants 1, 2). First in,
// first out, so epochs ascend. An entry counts only while its page is still in limbo at that very version; one that was
// taken back by a miss is passed over.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "bufferpool/page_map.h"
#include "common/planted_bug.h"
#include "runtime/sync.h"

namespace kelda::bufferpool {

struct LimboEntry {
  PageId page;
  FrameId frame;
  std::uint64_t version;  // of the state word (kVersionMask) since the page went to limbo
};

struct LimboBatch {
  PageMap::Epoch epoch = 0;
  std::vector<LimboEntry> entries;
};

class LimboQueue {
 public:
  void push(LimboBatch batch) {
    latch_.lock();
    batches_.push_back(std::move(batch));
    latch_.unlock();
  }
  // The oldest batch, if its epoch has passed.
  std::optional<LimboBatch> pop_passed(PageMap& map) {
    std::optional<LimboBatch> batch;
    latch_.lock();
    if (!batches_.empty() && (map.passed(batches_.front().epoch) || planted(Bug::kFrameReusedBeforeEpoch))) {
      batch = std::move(batches_.front());
      batches_.pop_front();
    }
    latch_.unlock();
    return batch;
  }

 private:
  runtime::SpinLatch latch_;
  std::deque<LimboBatch> batches_;
};

}  // namespace kelda::bufferpool
