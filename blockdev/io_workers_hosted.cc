#include "blockdev/io_workers_hosted.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/assert.h"

namespace kelda::blockdev {

namespace {

// The part of the segments that is still to do.
std::vector<iovec> rest_of(const Request& request, std::uint64_t done) {
  std::vector<iovec> rest;
  for (const IoSegment& segment : request.segments) {
    const std::uint64_t skip = std::min<std::uint64_t>(done, segment.bytes);
    done -= skip;
    if (skip < segment.bytes) rest.push_back({segment.data + skip, segment.bytes - skip});
  }
  return rest;
}

int flush_blocking(const DiskFile& file) { return fdatasync(file.fd()) == 0 ? 0 : -errno; }

std::int64_t transfer_blocking(const DiskFile& file, const Request& request, std::uint64_t done) {
  const int flags = request.fua && file.disk_has_fua() ? RWF_DSYNC : 0;
  for (;;) {
    const std::vector<iovec> rest = rest_of(request, done);
    if (rest.empty()) return static_cast<std::int64_t>(done);
    const auto at = static_cast<off_t>(request.offset_bytes + done);
    const int count = static_cast<int>(std::min<std::size_t>(rest.size(), IOV_MAX));
    const ssize_t moved = request.op == Op::kRead
                              ? preadv(file.fd(), rest.data(), count, at)
                              : pwritev2(file.fd(), rest.data(), count, at, flags);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) return -errno;
    if (moved == 0) return static_cast<std::int64_t>(done);  // the end of the file, or a device that takes no more
    done += static_cast<std::uint64_t>(moved);
  }
}

// What was done before, by io_uring, is not flushed yet either.
std::int64_t write_blocking(const DiskFile& file, const Request& request, std::uint64_t already_done) {
  const std::int64_t moved = transfer_blocking(file, request, already_done);
  if (moved < 0 || !request.fua || file.disk_has_fua()) return moved;
  const int flushed = flush_blocking(file);
  return flushed < 0 ? flushed : moved;
}

std::int64_t range_blocking(const DiskFile& file, const Request& request) {
  int result = 0;
  if (file.is_block_device()) {
    std::uint64_t range[] = {request.offset_bytes, request.length_bytes};
    result = ioctl(file.fd(), request.op == Op::kDiscard ? BLKDISCARD : BLKZEROOUT, range);
  } else {
    const int mode = request.op == Op::kDiscard ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    result = fallocate(file.fd(), mode | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(request.offset_bytes),
                       static_cast<off_t>(request.length_bytes));
  }
  return result == 0 ? 0 : -errno;
}

}  // namespace

std::int64_t perform_blocking(const DiskFile& file, const Request& request, std::uint64_t already_done) {
  switch (request.op) {
    case Op::kRead: return transfer_blocking(file, request, already_done);
    case Op::kWrite: return write_blocking(file, request, already_done);
    case Op::kFlush: return flush_blocking(file);
    case Op::kDiscard:
    case Op::kWriteZeroes: return range_blocking(file, request);
  }
  __builtin_unreachable();
}

IoWorkers::~IoWorkers() {
  {
    std::scoped_lock guard(mutex_);
    KELDA_ASSERT(first_ == nullptr);
    ending_ = true;
  }
  work_came_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void IoWorkers::submit(Request& request) {
  std::scoped_lock guard(mutex_);
  while (threads_.size() < kThreads) threads_.emplace_back([this] { work(); });
  request.next = nullptr;
  (last_ != nullptr ? last_->next : first_) = &request;
  last_ = &request;
  work_came_.notify_one();
}

void IoWorkers::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    work_came_.wait(lock, [this] { return first_ != nullptr || ending_; });
    if (first_ == nullptr) return;
    Request& request = *first_;
    first_ = request.next;
    if (first_ == nullptr) last_ = nullptr;
    lock.unlock();
    auto& in_flight = *reinterpret_cast<InFlight*>(request.driver_private);
    in_flight.result = perform_blocking(file_, request, static_cast<std::uint64_t>(in_flight.result));
    in_flight.core->post(in_flight);
    lock.lock();
  }
}

}  // namespace kelda::blockdev
