#include "runtime/ring_hosted.h"

#include <sys/resource.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "common/assert.h"
#include "runtime/backend.h"

namespace kelda::runtime {

namespace {

constexpr unsigned kSubmissionEntries = 512;
constexpr unsigned kCompletionEntries = 4096;

// Newest first. Deferred task work is the one that matters: completions are then handled when the core asks for them
// instead of interrupting it.
constexpr unsigned kFlagChoices[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,  // Linux 6.1
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,                                // Linux 5.19
    0,
};

// The kernel's promises that the loop is built on: waiting with a time-out (5.11) and no lost completions (5.5).
constexpr unsigned kNeeded = IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP;

// Linux takes a ring's memory from what the user may lock, unless it is root.
std::string locked_memory_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return "";
  return ", with a limit of " + std::to_string(limit.rlim_cur / 1024) + " KiB on memory that may be locked (ulimit -l): raise it";
}

std::string reason_of(int error) {
  switch (error) {
    case EPERM:
    case EACCES: return "it is forbidden, by sysctl kernel.io_uring_disabled or by a container's system call filter";
    case ENOSYS: return "this kernel has none, or a container's system call filter hides it";
    case ENOMEM: return "not enough memory for it" + locked_memory_limit();
    default: return std::strerror(error);
  }
}

}  // namespace

Result<std::unique_ptr<Ring>> Ring::create() {
  const char* choice = std::getenv("KELDA_IO_URING");
  if (choice != nullptr && std::strcmp(choice, "off") == 0) return Error(Code::kUnsupported, "KELDA_IO_URING=off");
  std::unique_ptr<Ring> ring(new Ring());
  int error = 0;
  for (unsigned flags : kFlagChoices) {
    io_uring_params params{};
    params.flags = flags | IORING_SETUP_CQSIZE;
    params.cq_entries = kCompletionEntries;
    error = io_uring_queue_init_params(kSubmissionEntries, &ring->ring_, &params);
    if (error == 0) {
      ring->open_ = true;
      if ((params.features & kNeeded) != kNeeded) return Error(Code::kUnsupported, "this kernel's is too old");
      return ring;
    }
    if (error != -EINVAL) break;
  }
  return Error(Code::kUnsupported, reason_of(-error));
}

Ring::~Ring() {
  if (open_) io_uring_queue_exit(&ring_);
}

void Ring::make_room(unsigned entries) {
  while (io_uring_sq_space_left(&ring_) < entries) submit();
}

io_uring_sqe* Ring::next_sqe() {
  make_room(1);
  return io_uring_get_sqe(&ring_);
}

bool Ring::needs_enter() const {
  const unsigned kernel_flags = __atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED);
  return io_uring_sq_ready(&ring_) > 0 || (kernel_flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

// EBUSY and EAGAIN mean that completions must be reaped first, which the loop does next; nothing was lost.
void Ring::submit() {
  const int result = io_uring_submit_and_get_events(&ring_);
  KELDA_ASSERT(result >= 0 || result == -EINTR || result == -EBUSY || result == -EAGAIN || result == -ETIME);
}

std::size_t Ring::reap() {
  std::size_t count = 0;
  unsigned head;
  io_uring_cqe* cqe;
  // One by one and not a batch: complete() may submit, and needs the room.
  while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
    head = cqe->flags;
    const int result = cqe->res;
    auto* op = static_cast<UringOp*>(io_uring_cqe_get_data(cqe));
    io_uring_cqe_seen(&ring_, cqe);
    if ((head & IORING_CQE_F_MORE) == 0) --in_flight_;
    op->complete(*op, result, head);
    ++count;
  }
  return count;
}

void Ring::wait(TimeNs timeout_ns) {
  __kernel_timespec limit{};
  limit.tv_sec = static_cast<long long>(timeout_ns / 1'000'000'000);
  limit.tv_nsec = static_cast<long long>(timeout_ns % 1'000'000'000);
  io_uring_cqe* cqe = nullptr;
  const int result = io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, timeout_ns == kNever ? nullptr : &limit, nullptr);
  KELDA_ASSERT(result >= 0 || result == -EINTR || result == -EBUSY || result == -EAGAIN || result == -ETIME);
}

bool Ring::cancel_all_and_wait(TimeNs timeout_ns) {
  const TimeNs end = hosted_platform().now_ns() + timeout_ns;
  if (in_flight_ > 0) {
    queue_unheeded([](io_uring_sqe* sqe) { io_uring_prep_cancel(sqe, nullptr, IORING_ASYNC_CANCEL_ANY); });
  }
  while (in_flight_ > 0 && hosted_platform().now_ns() < end) {
    wait(timeout_ns / 16);
    reap();
  }
  return in_flight_ == 0;
}

Result<> Ring::register_buffers(MutableBytes memory) {
  if (!registered_.empty()) return Error(Code::kUnsupported, "this ring has registered buffers already");
  const iovec one{memory.data(), memory.size()};
  const int result = io_uring_register_buffers(&ring_, &one, 1);
  if (result != 0) return Error(Code::kUnsupported, std::string("registered buffers: ") + std::strerror(-result));
  registered_ = memory;
  return {};
}

}  // namespace kelda::runtime
