#include "runtime/core_hosted.h"

#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "common/assert.h"

namespace kelda::runtime {

namespace {

constexpr TimeNs kQuiesceTimeoutNs = 10'000'000'000;

TimeNs time_left(TimeNs deadline_ns) {
  if (deadline_ns == kNever) return kNever;
  const TimeNs now = hosted_platform().now_ns();
  return deadline_ns > now ? deadline_ns - now : 0;
}

// Sleeps in io_uring_enter. A read of an eventfd stands in the ring, so that wake() is a write to it.
class UringBackend final : public HostedBackend, private UringOp {
 public:
  UringBackend(std::unique_ptr<Ring> ring, int wake_fd) : ring_(std::move(ring)), wake_fd_(wake_fd) {
    complete = [](UringOp& self, int, std::uint32_t) { static_cast<UringBackend&>(self).armed_ = false; };
  }
  ~UringBackend() override {
    ring_.reset();
    close(wake_fd_);
  }
  Ring* ring() override { return ring_.get(); }

  std::size_t poll(bool about_to_sleep) override {
    if (ring_->needs_enter() && !about_to_sleep) ring_->submit();
    return ring_->reap();
  }

  void sleep(TimeNs deadline_ns) override {
    if (!armed_) {
      ring_->queue(*this, [this](io_uring_sqe* sqe) { io_uring_prep_read(sqe, wake_fd_, &wakes_, sizeof wakes_, 0); });
      armed_ = true;
    }
    ring_->wait(time_left(deadline_ns));
  }

  void wake() override {
    const std::uint64_t one = 1;
    const ssize_t written = write(wake_fd_, &one, sizeof one);
    KELDA_ASSERT(written == sizeof one);
  }

  bool quiesce() override { return ring_->cancel_all_and_wait(kQuiesceTimeoutNs); }

 private:
  std::unique_ptr<Ring> ring_;
  int wake_fd_;
  bool armed_ = false;  // the read is in the ring
  std::uint64_t wakes_ = 0;
};

// Sleeps on a futex. Devices of such a core complete by posting messages to it.
class FutexBackend final : public HostedBackend {
 public:
  Ring* ring() override { return nullptr; }
  std::size_t poll(bool) override { return 0; }

  void sleep(TimeNs deadline_ns) override {
    // The word is 1 from wake() until the sleep that it ended: a wake before the wait makes the wait return at once.
    const TimeNs left = time_left(deadline_ns);
    timespec limit{static_cast<time_t>(left / 1'000'000'000), static_cast<long>(left % 1'000'000'000)};
    if (word_.load(std::memory_order_acquire) == 0) {
      syscall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, 0, left == kNever ? nullptr : &limit, nullptr, 0);
    }
    word_.store(0, std::memory_order_relaxed);
  }

  void wake() override {
    word_.store(1, std::memory_order_release);
    syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  }

  bool quiesce() override { return true; }

 private:
  std::atomic<std::uint32_t> word_{0};
};

}  // namespace

Ring* Ring::of(Core& core) {
  auto* hosted = dynamic_cast<HostedBackend*>(&core.backend());
  return hosted != nullptr ? hosted->ring() : nullptr;
}

Result<std::unique_ptr<CoreBackend>> make_hosted_backend() {
  Result<std::unique_ptr<Ring>> ring = Ring::create();
  if (!ring) return std::make_unique<FutexBackend>();
  const int wake_fd = eventfd(0, EFD_CLOEXEC);
  if (wake_fd < 0) return Error(Code::kOutOfMemory, std::string("eventfd: ") + std::strerror(errno));
  return std::make_unique<UringBackend>(std::move(*ring), wake_fd);
}

}  // namespace kelda::runtime
