// One io_uring of one core, shared by everything on it: block I/O, sockets, the wake-up.
//
// Contract: used on the core's own thread only, wake_fd() excepted. An operation is an UringOp embedded in the
// caller's object, and its address is the user_data; it stays untouched until complete() was called without
// IORING_CQE_F_MORE. complete() runs in the core's loop: it must not park, but may queue operations and unpark fibers.
// Submissions are batched: queue as many as you like, the loop starts them at the end of its turn.
#pragma once

#include <liburing.h>

#include <cstdint>
#include <memory>
#include <span>

#include "common/result.h"
#include "common/types.h"
#include "runtime/core.h"

namespace kelda::runtime {

struct UringOp {
  // result: as the system call's, or a negative errno. flags: IORING_CQE_F_*.
  void (*complete)(UringOp& self, int result, std::uint32_t flags) = nullptr;
};

class Ring {
 public:
  // kUnsupported where the kernel forbids or lacks io_uring, where there is not enough memory for a ring, and where
  // KELDA_IO_URING=off; the message says which, as the end of "io_uring is not available: ".
  static Result<std::unique_ptr<Ring>> create();
  // The ring of this core; null where io_uring is not available (or the core is not a hosted one).
  static Ring* of(Core& core);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // An empty submission whose completion goes to `op`; fill it with io_uring_prep_*() and nothing else (flags such as
  // IOSQE_FIXED_FILE by |=). Never null: a full queue is submitted first.
  template <class Prepare>
  void queue(UringOp& op, Prepare prepare) {
    io_uring_sqe* sqe = next_sqe();
    prepare(sqe);
    io_uring_sqe_set_data(sqe, &op);
    ++in_flight_;
  }
  // Two that the kernel runs one after the other: the second only after the first succeeded in full, else it completes with
  // -ECANCELED, after the first.
  template <class PrepareFirst, class PrepareSecond>
  void queue_linked(UringOp& first, PrepareFirst prepare_first, UringOp& second, PrepareSecond prepare_second) {
    make_room(2);  // a link does not reach from one submission into the next
    queue(first, [&](io_uring_sqe* sqe) {
      prepare_first(sqe);
      sqe->flags |= IOSQE_IO_LINK;
    });
    queue(second, prepare_second);
  }
  // As queue(), for an operation whose completion nobody waits for (a cancel): it is reaped and forgotten.
  template <class Prepare>
  void queue_unheeded(Prepare prepare) {
    queue(unheeded_, prepare);
  }

  // Operations queued or running. A multishot counts as one until it ends.
  std::uint64_t in_flight() const { return in_flight_; }

  // Registers memory for io_uring_prep_read_fixed/write_fixed with index 0. Once a ring; kUnsupported if refused.
  Result<> register_buffers(MutableBytes memory);
  MutableBytes registered() const { return registered_; }

  // For the core's backend.
  std::size_t reap();
  void submit();
  bool needs_enter() const;  // something is queued, or completions wait in the kernel
  void wait(TimeNs timeout_ns);
  bool cancel_all_and_wait(TimeNs timeout_ns);

 private:
  Ring() = default;
  void make_room(unsigned entries);
  io_uring_sqe* next_sqe();

  io_uring ring_{};
  bool open_ = false;
  std::uint64_t in_flight_ = 0;
  MutableBytes registered_;
  UringOp unheeded_{[](UringOp&, int, std::uint32_t) {}};
};

}  // namespace kelda::runtime
