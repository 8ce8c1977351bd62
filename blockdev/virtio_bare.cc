// The bare disk: kernel/virtio_blk behind the block interface.
//
// A request travels in an InFlight from its core's pool. Its own core reaps it, or, where CPUs share a queue, another
// one, which then posts it home: completion and counts happen on the core that submitted.
//
// Invariants
//  1. An InFlight is in exactly one place: its core's pool, the driver, or its core's inbox.
//  2. A core with requests in flight has its poller registered. (A core that ended and came back has lost its pollers:
//     hence the registration anew whenever the first request comes.)
//  3. A core does not sleep on requests that the device was not told about.
//  4. Where notifications and interrupts may be missed (kernel/emulation.h) a core with requests in flight looks for their
//     completions in time and, when none came, tells the device again.
#include "blockdev/virtio_bare.h"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <utility>
#include <vector>

#include "blockdev/counters.h"
#include "common/assert.h"
#include "kernel/cpu.h"
#include "kernel/emulation.h"
#include "kernel/time.h"
#include "kernel/virtio_devices.h"

namespace kelda::blockdev {
namespace {

using kernel::BlkOp;
using kernel::BlkStatus;
using kernel::VirtioBlk;

class Disk;
class DiskCore;

struct InFlight : kernel::BlkRequest, runtime::Message {
  Request* request = nullptr;
  DiskCore* home = nullptr;
  std::vector<kernel::BlkSegment> list;  // keeps its capacity from use to use
};

// What one CPU has to do with one disk.
class DiskCore final : public runtime::Poller {
 public:
  void attach(Disk& disk, std::uint32_t cpu) {
    disk_ = &disk;
    cpu_ = cpu;
  }
  void submit(std::span<Request* const> requests);
  std::size_t poll() override;
  bool prepare_sleep() override;
  void after_sleep() override;
  runtime::TimeNs next_deadline_ns() override;

 private:
  void tell_again_if_late(std::size_t done);
  InFlight& take();
  void begin(Request& request);
  void end(InFlight& io);
  static void on_complete(kernel::BlkRequest& done);
  static void on_arrival(runtime::Message& message, runtime::Core& core);

  Disk* disk_ = nullptr;
  std::uint32_t cpu_ = 0;
  runtime::Core* core_ = nullptr;
  std::size_t in_flight_ = 0;
  bool armed_ = false;
  bool kick_is_due_ = false;
  runtime::TimeNs tell_again_ns_ = 0;  // only where may_miss_devices()
  std::vector<std::unique_ptr<InFlight>> owned_;
  std::vector<InFlight*> free_;
};

// A disk of the machine. Lives for ever: pollers of any core may lead here.
class Disk {
 public:
  Disk(std::string name, VirtioBlk& driver) : name_(std::move(name)), driver_(driver) {
    for (std::uint32_t cpu = 0; cpu < cores_.size(); ++cpu) cores_[cpu].attach(*this, cpu);
  }
  const std::string& name() const { return name_; }
  VirtioBlk& driver() { return driver_; }
  DiskCore& here() { return cores_[kernel::this_cpu_index()]; }
  Counters& counters() { return counters_; }
  std::atomic<bool> is_open{false};

 private:
  std::string name_;
  VirtioBlk& driver_;
  Counters counters_;
  std::array<DiskCore, kernel::kMaxCpus> cores_;
};

BlkOp op_of(Op op) {
  switch (op) {
    case Op::kRead: return BlkOp::kRead;
    case Op::kWrite: return BlkOp::kWrite;
    case Op::kFlush: return BlkOp::kFlush;
    case Op::kDiscard: return BlkOp::kDiscard;
    case Op::kWriteZeroes: return BlkOp::kWriteZeroes;
  }
  __builtin_unreachable();
}

const char* op_name(Op op) {
  switch (op) {
    case Op::kRead: return "read";
    case Op::kWrite: return "write";
    case Op::kFlush: return "flush";
    case Op::kDiscard: return "discard";
    case Op::kWriteZeroes: return "write-zeroes";
  }
  __builtin_unreachable();
}

Result<> result_of(const Disk& disk, const kernel::BlkRequest& done, Op op) {
  if (done.status == BlkStatus::kOk) return {};
  Code code = done.status == BlkStatus::kUnsupported ? Code::kUnsupported : Code::kIo;
  return Error(code, fmt::format("{}: {} of {} bytes at offset {}: {}", disk.name(), op_name(op), done.length_bytes,
                                 done.offset_bytes, kernel::blk_status_text(done.status)));
}

InFlight& DiskCore::take() {
  if (free_.empty()) {
    owned_.push_back(std::make_unique<InFlight>());
    free_.push_back(owned_.back().get());
  }
  InFlight& io = *free_.back();
  free_.pop_back();
  return io;
}

void DiskCore::begin(Request& request) {
  InFlight& io = take();
  io.request = &request;
  io.home = this;
  io.op = op_of(request.op);
  io.offset_bytes = request.offset_bytes;
  io.length_bytes = request.length_bytes;
  io.list.clear();
  for (const IoSegment& segment : request.segments) io.list.push_back({segment.data, segment.bytes});
  io.segments = io.list;
  io.complete = &DiskCore::on_complete;
  core_->io_started();
  ++in_flight_;
  disk_->driver().submit(cpu_, io);
}

void DiskCore::submit(std::span<Request* const> requests) {
  if (in_flight_ == 0) {
    core_ = &runtime::Core::current();
    core_->remove_poller(*this);
    core_->add_poller(*this);
    if (kernel::may_miss_devices()) tell_again_ns_ = kernel::monotonic_ns() + kernel::kRequestLookNs;
  }
  // An idle disk is told at once. A busy one learns of the requests of all fibers of this turn together: telling it is
  // an exit to the hypervisor, the dearest part of a request.
  const bool disk_is_idle = in_flight_ == 0;
  for (Request* request : requests) begin(*request);
  if (disk_is_idle) {
    disk_->driver().kick(cpu_);
  } else {
    kick_is_due_ = true;
  }
}

// On the core that reaped it.
void DiskCore::on_complete(kernel::BlkRequest& done) {
  auto& io = static_cast<InFlight&>(done);
  if (kernel::this_cpu_index() == io.home->cpu_) return io.home->end(io);
  io.run = &DiskCore::on_arrival;
  io.home->core_->post(io);
}

void DiskCore::on_arrival(runtime::Message& message, runtime::Core&) {
  auto& io = static_cast<InFlight&>(message);
  io.home->end(io);
}

// On the core that submitted.
void DiskCore::end(InFlight& io) {
  Request& request = *io.request;
  request.status = result_of(*disk_, io, request.op);
  disk_->counters().count(request, io.length_bytes);
  free_.push_back(&io);
  --in_flight_;
  core_->io_ended();
  request.completion->done();  // the last touch: the request may be gone afterwards
}

std::size_t DiskCore::poll() {
  if (in_flight_ == 0) return 0;
  if (std::exchange(kick_is_due_, false)) disk_->driver().kick(cpu_);
  const std::size_t done = disk_->driver().poll(cpu_);
  if (kernel::may_miss_devices()) tell_again_if_late(done);
  return done;
}

// (4)
void DiskCore::tell_again_if_late(std::size_t done) {
  const runtime::TimeNs now = kernel::monotonic_ns();
  if (done == 0 && now < tell_again_ns_) return;
  if (done == 0) disk_->driver().kick_again(cpu_);
  tell_again_ns_ = now + kernel::kRequestLookNs;
}

runtime::TimeNs DiskCore::next_deadline_ns() {
  return in_flight_ > 0 && kernel::may_miss_devices() ? kernel::monotonic_ns() + kernel::kRequestLookNs : runtime::kNever;
}

bool DiskCore::prepare_sleep() {
  if (in_flight_ == 0) return true;
  if (std::exchange(kick_is_due_, false)) disk_->driver().kick(cpu_);  // from another poller, after our turn
  armed_ = disk_->driver().arm(cpu_);
  return armed_;
}

void DiskCore::after_sleep() {
  if (armed_) disk_->driver().disarm(cpu_);
  armed_ = false;
}

class BareDevice final : public BlockDevice {
 public:
  BareDevice(Disk& disk, const OpenOptions& options) : disk_(disk) {
    const kernel::BlkLimits& limits = disk.driver().limits();
    info_.name = disk.name();
    info_.driver = "virtio-blk";
    info_.size_bytes = round_down(disk.driver().capacity_bytes(), limits.block_bytes);
    info_.block_bytes = limits.block_bytes;
    // Nothing in the protocol promises more than a logical block.
    info_.atomic_bytes = limits.block_bytes;
    info_.read_only = limits.read_only || options.read_only;
    info_.has_flush = limits.has_flush;
    info_.has_discard = limits.discard_bytes > 0 && !info_.read_only;
    info_.has_write_zeroes = limits.write_zeroes_bytes > 0 && !info_.read_only;
  }
  ~BareDevice() override { disk_.is_open.store(false, std::memory_order_release); }

  const DeviceInfo& info() const override { return info_; }
  void submit(std::span<Request* const> requests) override {
    for (const Request* request : requests) check_request(*request, info_);
    disk_.here().submit(requests);
  }
  DeviceStats stats() const override { return disk_.counters().total(); }

 private:
  Disk& disk_;
  DeviceInfo info_;
};

// Found at the first open and kept.
std::vector<std::unique_ptr<Disk>>& disks() {
  static auto* const found = [] {
    auto* list = new std::vector<std::unique_ptr<Disk>>;
    for (auto& driver : kernel::virtio_devices().disks) {
      // 26 disks are vda to vdz; a machine with more names the rest vdaa, vdab ...
      std::size_t n = list->size();
      std::string letters(1, static_cast<char>('a' + n % 26));
      if (n >= 26) letters.insert(letters.begin(), static_cast<char>('a' + n / 26 - 1));
      list->push_back(std::make_unique<Disk>("/dev/vd" + letters, *driver));
    }
    return list;
  }();
  return *found;
}

Error no_such_disk(const std::string& name) {
  std::string there;
  for (auto& disk : disks()) {
    there += fmt::format("{}{} ({} bytes, serial '{}', {})", there.empty() ? "" : ", ", disk->name(),
                         disk->driver().capacity_bytes(), disk->driver().limits().serial, disk->driver().where());
  }
  std::string message = name + ": no such disk; this machine has " + (there.empty() ? "none" : there);
  for (const std::string& problem : kernel::virtio_devices().problems) message += "; " + problem;
  return Error(Code::kNotFound, message);
}

}  // namespace

Result<std::unique_ptr<BlockDevice>> open_virtio(const std::string& name, OpenOptions options) {
  for (auto& disk : disks()) {
    if (disk->name() != name) continue;
    if (disk->driver().limits().read_only && !options.read_only) {
      return Error(Code::kInvalidArgument, name + " is read-only: the hypervisor gives it so; take readonly=on away, or choose another disk");
    }
    if (disk->driver().capacity_bytes() == 0) return Error(Code::kTooSmall, name + ": the disk is empty");
    // Acquire and release order one opener's use of the disk after the other's.
    if (disk->is_open.exchange(true, std::memory_order_acquire)) return Error(Code::kBusy, name + ": the disk is open already");
    return std::make_unique<BareDevice>(*disk, options);
  }
  return no_such_disk(name);
}

}  // namespace kelda::blockdev
