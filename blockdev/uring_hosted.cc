// HostedDevice: requests as io_uring operations of the submitting core's ring.
#include <linux/falloc.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>

#include "blockdev/device_hosted.h"
#include "blockdev/io_workers_hosted.h"
#include "common/assert.h"

namespace kelda::blockdev {

namespace {

static_assert(sizeof(IoSegment) == sizeof(iovec) && offsetof(IoSegment, data) == offsetof(iovec, iov_base) &&
              offsetof(IoSegment, bytes) == offsetof(iovec, iov_len));

InFlight& in_flight_of(Request& request) { return *reinterpret_cast<InFlight*>(request.driver_private); }

bool within(MutableBytes memory, const IoSegment& segment) {
  return segment.data >= memory.data() && segment.data + segment.bytes <= memory.data() + memory.size();
}

const char* verb_of(Op op) {
  switch (op) {
    case Op::kRead: return "read";
    case Op::kWrite: return "write";
    case Op::kFlush: return "flush";
    case Op::kDiscard: return "discard";
    case Op::kWriteZeroes: return "write of zeroes";
  }
  __builtin_unreachable();
}

void prepare_transfer(io_uring_sqe* sqe, const runtime::Ring& ring, int fd, const Request& request) {
  const IoSegment& first = request.segments.front();
  const auto* vector = reinterpret_cast<const iovec*>(request.segments.data());
  const auto count = static_cast<unsigned>(request.segments.size());
  const auto bytes = static_cast<unsigned>(first.bytes);
  const bool fixed = count == 1 && within(ring.registered(), first);
  const std::uint64_t at = request.offset_bytes;
  if (request.op == Op::kRead) {
    if (fixed) return io_uring_prep_read_fixed(sqe, fd, first.data, bytes, at, 0);
    if (count == 1) return io_uring_prep_read(sqe, fd, first.data, bytes, at);
    return io_uring_prep_readv(sqe, fd, vector, count, at);
  }
  if (fixed) {
    io_uring_prep_write_fixed(sqe, fd, first.data, bytes, at, 0);
  } else if (count == 1) {
    io_uring_prep_write(sqe, fd, first.data, bytes, at);
  } else {
    io_uring_prep_writev(sqe, fd, vector, count, at);
  }
}

void prepare(io_uring_sqe* sqe, const runtime::Ring& ring, int fd, const Request& request) {
  const auto at = static_cast<off_t>(request.offset_bytes);
  const auto length = static_cast<off_t>(request.length_bytes);
  switch (request.op) {
    case Op::kRead:
    case Op::kWrite: return prepare_transfer(sqe, ring, fd, request);
    case Op::kFlush: return io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    case Op::kDiscard: return io_uring_prep_fallocate(sqe, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length);
    case Op::kWriteZeroes: return io_uring_prep_fallocate(sqe, fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, at, length);
  }
}

}  // namespace

HostedDevice::HostedDevice(std::unique_ptr<DiskFile> file)
    : file_(std::move(file)), info_(file_->info()), workers_(std::make_unique<IoWorkers>(*file_)) {
  const bool ring = runtime::Ring::of(runtime::Core::current()) != nullptr;
  info_.driver = ring ? "io_uring" : "pread";
  if (!file_->is_direct()) info_.driver += ", buffered";
  if (!ring) {
    const auto again = runtime::Ring::create();
    std::fprintf(stderr, "kelda: %s: io_uring is not available here (%s): using threads that block in pread and pwrite, "
                 "which is slower\n", info_.name.c_str(), again ? "not when this core started" : again.error().message().c_str());
  }
}

HostedDevice::~HostedDevice() = default;

bool HostedDevice::has(const Request& request) const {
  if (request.op == Op::kDiscard) return info_.has_discard;
  if (request.op == Op::kWriteZeroes) return info_.has_write_zeroes;
  return true;
}

void HostedDevice::submit(std::span<Request* const> requests) {
  runtime::Core& core = runtime::Core::current();
  runtime::Ring* ring = runtime::Ring::of(core);
  for (Request* request : requests) {
    check_request(*request, info_);
    auto* in_flight = new (request->driver_private) InFlight();
    in_flight->device = this;
    in_flight->request = request;
    in_flight->core = &core;
    const bool range = request->op == Op::kDiscard || request->op == Op::kWriteZeroes;
    if (!has(*request)) {
      finish(*request, -EOPNOTSUPP);
    } else if (ring == nullptr || (range && file_->is_block_device())) {
      submit_to_workers(*request);
    } else {
      submit_to_ring(*ring, *request);
    }
  }
}

void HostedDevice::submit_to_ring(runtime::Ring& ring, Request& request) {
  if (request.fua && !file_->disk_has_fua()) return submit_write_and_flush(ring, request);
  InFlight& in_flight = in_flight_of(request);
  TransferOp& op = in_flight;
  op.complete = [](runtime::UringOp& done, int result, std::uint32_t) {
    auto& self = static_cast<InFlight&>(static_cast<TransferOp&>(done));
    self.device->transferred(self, result);
  };
  ring.queue(op, [&](io_uring_sqe* sqe) {
    prepare(sqe, ring, file_->fd(), request);
    if (request.fua) sqe->rw_flags = RWF_DSYNC;
  });
}

// Where RWF_DSYNC would end in a flush of the whole disk anyway, Linux leaves that flush to a worker bound to the CPU that
// took the write's interrupt, and it waits while that CPU is busy. A linked fdatasync does not.
void HostedDevice::submit_write_and_flush(runtime::Ring& ring, Request& request) {
  InFlight& in_flight = in_flight_of(request);
  TransferOp& write = in_flight;
  FlushOp& flush = in_flight;
  write.complete = [](runtime::UringOp& done, int result, std::uint32_t) {
    static_cast<InFlight&>(static_cast<TransferOp&>(done)).result = result;
  };
  flush.complete = [](runtime::UringOp& done, int result, std::uint32_t) {
    auto& self = static_cast<InFlight&>(static_cast<FlushOp&>(done));
    // Cancelled: the write failed or fell short, so its result counts.
    self.device->transferred(self, result == 0 || result == -ECANCELED ? self.result : result);
  };
  ring.queue_linked(
      write, [&](io_uring_sqe* sqe) { prepare(sqe, ring, file_->fd(), request); },
      flush, [&](io_uring_sqe* sqe) { io_uring_prep_fsync(sqe, file_->fd(), IORING_FSYNC_DATASYNC); });
}

void HostedDevice::transferred(InFlight& in_flight, std::int64_t result) {
  Request& request = *in_flight.request;
  in_flight.result = result;
  if (result <= 0 || static_cast<std::uint64_t>(result) >= transfer_bytes(request)) return finish(request, result);
  submit_to_workers(request);  // they go on where io_uring stopped
}

void HostedDevice::submit_to_workers(Request& request) {
  InFlight& in_flight = in_flight_of(request);
  in_flight.core->io_started();
  in_flight.run = [](runtime::Message& message, runtime::Core& core) {
    auto& self = static_cast<InFlight&>(message);
    core.io_ended();
    self.device->finish(*self.request, self.result);
  };
  workers_->submit(request);
}

void HostedDevice::finish(Request& request, std::int64_t result) {
  const std::uint64_t bytes = transfer_bytes(request);
  request.status = {};
  if (result < 0) {
    request.status = error_of(request, static_cast<int>(-result));
  } else if (static_cast<std::uint64_t>(result) != bytes) {
    request.status = error_of(request, 0);
  }
  counters_.count(request, bytes);
  request.completion->done();  // the request may be gone now
}

// error_number 0: the transfer ended early.
Error HostedDevice::error_of(const Request& request, int error_number) const {
  std::string words = info_.name + ": " + verb_of(request.op);
  if (request.op != Op::kFlush) {
    const std::uint64_t bytes = request.length_bytes > 0 ? request.length_bytes : transfer_bytes(request);
    words += " of " + std::to_string(bytes) + " bytes at " + std::to_string(request.offset_bytes);
  }
  words += std::string(": ") + (error_number != 0 ? std::strerror(error_number) : "ended early, the file has shrunk");
  if (error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG) return Error(Code::kNoSpace, std::move(words));
  if (error_number == EOPNOTSUPP) return Error(Code::kUnsupported, std::move(words));
  return Error(Code::kIo, std::move(words));
}

Result<> HostedDevice::register_buffers(MutableBytes memory) {
  runtime::Ring* ring = runtime::Ring::of(runtime::Core::current());
  if (ring == nullptr) return Error(Code::kUnsupported, "this core has no io_uring to register buffers with");
  return ring->register_buffers(memory);
}

Result<std::unique_ptr<BlockDevice>> open_file(const std::string& path, const OpenOptions& options) {
  return std::make_unique<HostedDevice>(TRY(DiskFile::open(path, options)));
}

}  // namespace kelda::blockdev
