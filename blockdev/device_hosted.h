// The hosted device: a DiskFile served by io_uring, or by worker threads where there is none.
//
// Contract of a request in flight: its driver_private holds an InFlight. Whoever carries it out ends with
// HostedDevice::finish() on the submitting core, with the system call's result (bytes, or a negative errno).
#pragma once

#include <memory>
#include <new>

#include "blockdev/blockdev.h"
#include "blockdev/counters.h"
#include "blockdev/file_hosted.h"
#include "runtime/ring_hosted.h"

namespace kelda::blockdev {

class HostedDevice;
class IoWorkers;

struct TransferOp : runtime::UringOp {};
struct FlushOp : runtime::UringOp {};

struct InFlight : TransferOp, FlushOp, runtime::Message {
  HostedDevice* device = nullptr;
  Request* request = nullptr;
  runtime::Core* core = nullptr;  // where it was submitted
  std::int64_t result = 0;        // from a worker; before it, what io_uring has already transferred
};
static_assert(sizeof(InFlight) <= sizeof(Request::driver_private) && alignof(InFlight) <= alignof(void*));

class HostedDevice final : public BlockDevice {
 public:
  explicit HostedDevice(std::unique_ptr<DiskFile> file);
  ~HostedDevice() override;

  const DeviceInfo& info() const override { return info_; }
  void submit(std::span<Request* const> requests) override;
  DeviceStats stats() const override { return counters_.total(); }
  Result<> register_buffers(MutableBytes memory) override;

  const DiskFile& file() const { return *file_; }
  // Judges the result, counts, sets the status and completes the request.
  void finish(Request& request, std::int64_t result);

 private:
  void submit_to_ring(runtime::Ring& ring, Request& request);
  void submit_write_and_flush(runtime::Ring& ring, Request& request);
  void transferred(InFlight& in_flight, std::int64_t result);
  void submit_to_workers(Request& request);
  bool has(const Request& request) const;
  Error error_of(const Request& request, int error_number) const;

  std::unique_ptr<DiskFile> file_;
  DeviceInfo info_;
  Counters counters_;
  std::unique_ptr<IoWorkers> workers_;
};

// Carries out one request by ordinary system calls and returns bytes or a negative errno. Blocks. Short transfers are
// continued until done, an error, or the end of the file.
std::int64_t perform_blocking(const DiskFile& file, const Request& request, std::uint64_t already_done);

}  // namespace kelda::blockdev
