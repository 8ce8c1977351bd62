// One operation on a core's io_uring that a fiber waits for.
#pragma once

#include "common/assert.h"
#include "runtime/ring_hosted.h"

namespace kelda::net {

// Used by one fiber at a time; may be used again once it has completed.
class UringWait : public runtime::UringOp {
 public:
  UringWait() { complete = on_complete; }
  ~UringWait() { KELDA_ASSERT(!pending_); }
  UringWait(const UringWait&) = delete;
  UringWait& operator=(const UringWait&) = delete;

  bool pending() const { return pending_; }

  // Queues the operation and parks until it has completed, even when the deadline passes: then it is cancelled first,
  // because the kernel may use the caller's memory until the very end (N1). Returns the system call's result, a negative
  // errno, or -ECANCELED at the deadline.
  template <class Prepare>
  int run(runtime::Ring& ring, runtime::TimeNs deadline_ns, Prepare prepare) {
    runtime::Core& core = runtime::Core::current();
    fiber_ = &core.current_fiber();
    pending_ = true;
    ring.queue(*this, prepare);
    while (pending_ && core.park_until(deadline_ns)) {
    }
    if (pending_) {
      ring.queue_unheeded([this](io_uring_sqe* sqe) { io_uring_prep_cancel(sqe, static_cast<UringOp*>(this), 0); });
      while (pending_) core.park();
    }
    return result_;
  }

 private:
  static void on_complete(UringOp& op, int result, std::uint32_t) {
    auto& self = static_cast<UringWait&>(op);
    self.result_ = result;
    self.pending_ = false;
    runtime::Core::unpark(*self.fiber_);
  }

  runtime::Fiber* fiber_ = nullptr;
  int result_ = 0;
  bool pending_ = false;
};

}  // namespace kelda::net
