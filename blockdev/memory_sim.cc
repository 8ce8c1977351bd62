// The device's face: queues of requests in flight, time, and what tests ask for. The medium is memory_faults_sim.cc.
#include "blockdev/memory_sim.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "common/assert.h"

namespace kelda::blockdev {

namespace {

constexpr runtime::TimeNs kLookAtStuckNs = 10'000'000;

DeviceInfo info_of(const MemoryOptions& options) {
  DeviceInfo info;
  info.name = options.name;
  info.driver = "simulated";
  info.size_bytes = options.size_bytes;
  info.block_bytes = options.block_bytes;
  info.atomic_bytes = options.atomic_bytes;
  info.max_transfer_bytes = options.max_transfer_bytes;
  info.has_flush = options.has_flush;
  info.has_fua = options.has_fua;
  info.has_discard = options.has_discard;
  info.has_write_zeroes = options.has_write_zeroes;
  info.read_only = options.read_only;
  KELDA_ASSERT(info.size_bytes > 0 && info.size_bytes % info.block_bytes == 0);
  KELDA_ASSERT(info.atomic_bytes > 0 && info.block_bytes % info.atomic_bytes == 0);
  return info;
}

}  // namespace

MemoryDevice::MemoryDevice(MemoryOptions options, FaultPlan plan) : MemoryDevice(info_of(options), SparseImage()) {
  set_plan(std::move(plan));
}

MemoryDevice::MemoryDevice(DeviceInfo info, const SparseImage& image)
    : info_(std::move(info)), prng_(1), current_(image), durable_(image) {}

MemoryDevice::~MemoryDevice() {
  for (auto& slot : queues_) {
    Queue* queue = slot.load(std::memory_order_acquire);
    KELDA_ASSERT(queue == nullptr || queue->by_due_time.empty());
    delete queue;
  }
}

// A slot is filled by its own core; acquire and release are for crash(), which looks at all of them.
MemoryDevice::Queue& MemoryDevice::queue_of(const runtime::Core& core) {
  std::atomic<Queue*>& slot = queues_[core.index()];
  if (slot.load(std::memory_order_relaxed) == nullptr) slot.store(new Queue(*this), std::memory_order_release);
  return *slot.load(std::memory_order_relaxed);
}

void MemoryDevice::submit(std::span<Request* const> requests) {
  runtime::Core& core = runtime::Core::current();
  Queue& queue = queue_of(core);
  for (Request* request : requests) {
    check_request(*request, info_);
    core.io_started();
    std::scoped_lock guard(latch_);
    if (queue.by_due_time.empty()) core.add_poller(queue);
    runtime::TimeNs due = 0;
    if (plan_.delay_max_ns > 0) due = runtime::now_ns() + prng_.between(plan_.delay_min_ns, plan_.delay_max_ns);
    queue.by_due_time.emplace(due, Entry{request, first_change_ + changes_.size()});
  }
}

std::size_t MemoryDevice::Queue::poll() {
  runtime::Core& core = runtime::Core::current();
  const runtime::TimeNs now = runtime::now_ns();
  std::size_t finished = 0;
  for (;;) {
    device.latch_.lock();
    const auto first = by_due_time.begin();
    const bool empty = first == by_due_time.end();
    if (empty || first->first > now) {
      device.latch_.unlock();
      if (empty) core.remove_poller(*this);
      return finished;
    }
    Entry entry = first->second;
    by_due_time.erase(first);
    const runtime::TimeNs later = device.judge(entry, now);
    if (later > now) by_due_time.emplace(later, entry);
    device.latch_.unlock();
    if (later > now) continue;
    core.io_ended();
    device.finish(entry);
    ++finished;
  }
}

runtime::TimeNs MemoryDevice::Queue::next_deadline_ns() {
  std::scoped_lock guard(device.latch_);
  if (by_due_time.empty()) return runtime::kNever;
  // What is stuck is released by whoever cuts the power: look now and then.
  return std::min(by_due_time.begin()->first, runtime::now_ns() + kLookAtStuckNs);
}

void MemoryDevice::finish(const Entry& entry) {
  Request& request = *entry.request;
  {
    std::scoped_lock guard(latch_);
    request.status = carry_out(entry);
  }
  counters_.count(request, transfer_bytes(request));
  request.completion->done();  // the request may be gone now
}

std::uint64_t MemoryDevice::op_count() const {
  std::scoped_lock guard(latch_);
  return op_count_;
}

bool MemoryDevice::dead() const {
  std::scoped_lock guard(latch_);
  return dead_;
}

std::uint64_t MemoryDevice::faults_hit() const {
  std::scoped_lock guard(latch_);
  return faults_hit_;
}

void MemoryDevice::set_plan(FaultPlan plan) {
  std::scoped_lock guard(latch_);
  prng_ = Prng(plan.seed);
  rule_matches_.assign(plan.rules.size(), 0);
  plan_ = std::move(plan);
  release_stuck();
}

void MemoryDevice::release_stuck() {
  for (auto& slot : queues_) {
    Queue* queue = slot.load(std::memory_order_acquire);
    if (queue == nullptr) continue;
    while (auto stuck = queue->by_due_time.extract(runtime::kNever)) {
      stuck.key() = 0;
      queue->by_due_time.insert(std::move(stuck));
    }
  }
}

void MemoryDevice::grow(std::uint64_t size_bytes) {
  KELDA_ASSERT(size_bytes >= info_.size_bytes && size_bytes % info_.block_bytes == 0);
  info_.size_bytes = size_bytes;
}

std::uint64_t MemoryDevice::used_bytes() const {
  std::scoped_lock guard(latch_);
  return current_.used_bytes();
}

void MemoryDevice::make_unreadable(std::uint64_t offset_bytes) {
  std::scoped_lock guard(latch_);
  unreadable_.insert(offset_bytes / info_.block_bytes);
}

void MemoryDevice::peek(std::uint64_t offset_bytes, MutableBytes out) const {
  std::scoped_lock guard(latch_);
  current_.read(offset_bytes, out);
}

void MemoryDevice::poke(std::uint64_t offset_bytes, Bytes data) {
  std::scoped_lock guard(latch_);
  change({.at = offset_bytes, .length = data.size(), .data = {data.begin(), data.end()}, .durable = true});
}

void MemoryDevice::flip_bit(std::uint64_t offset_bytes, unsigned bit) {
  std::byte value{};
  peek(offset_bytes, {&value, 1});
  value ^= std::byte{1} << (bit % 8);
  poke(offset_bytes, {&value, 1});
}

std::uint64_t MemoryDevice::fingerprint() const {
  std::scoped_lock guard(latch_);
  return durable_.checksum();
}

}  // namespace kelda::blockdev
