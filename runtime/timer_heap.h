// The parked fibers of one core that have a deadline: a binary heap, the earliest first. A fiber is in it at most once
// and knows its place, so that an unpark removes it in O(log n).
#pragma once

#include <cstddef>
#include <vector>

#include "runtime/fiber.h"

namespace kelda::runtime {

class TimerHeap {
 public:
  bool empty() const { return heap_.empty(); }
  TimeNs earliest_ns() const { return heap_.empty() ? kNever : heap_.front()->deadline_ns; }
  void insert(Fiber& fiber);
  void remove(Fiber& fiber);
  // Takes out the earliest fiber if its deadline has come, else null.
  Fiber* pop_expired(TimeNs now);

 private:
  void place(std::size_t slot, Fiber& fiber);
  void sift_up(std::size_t slot, Fiber& fiber);
  void sift_down(std::size_t slot, Fiber& fiber);
  std::vector<Fiber*> heap_;
};

}  // namespace kelda::runtime
