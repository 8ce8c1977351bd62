// The request path: check, split into parts, issue, reap. A part is one request of the device.
#include "kernel/virtio_blk_queue.h"

#include <algorithm>

#include "common/assert.h"

namespace kelda::kernel {
namespace {

constexpr std::uint64_t kSectorBytes = 512;

bool moves_data(BlkOp op) { return op == BlkOp::kRead || op == BlkOp::kWrite; }

std::uint32_t device_type_of(BlkOp op) {
  switch (op) {
    case BlkOp::kRead: return VIRTIO_BLK_T_IN;
    case BlkOp::kWrite: return VIRTIO_BLK_T_OUT;
    case BlkOp::kFlush: return VIRTIO_BLK_T_FLUSH;
    case BlkOp::kDiscard: return VIRTIO_BLK_T_DISCARD;
    case BlkOp::kWriteZeroes: return VIRTIO_BLK_T_WRITE_ZEROES;
  }
  __builtin_unreachable();
}

BlkStatus status_of(std::uint8_t device_status) {
  if (device_status == VIRTIO_BLK_S_OK) return BlkStatus::kOk;
  return device_status == VIRTIO_BLK_S_UNSUPP ? BlkStatus::kUnsupported : BlkStatus::kIoError;
}

}  // namespace

// Also fills length_bytes of reads and writes.
BlkStatus VirtioBlk::check(BlkRequest& request) const {
  if (request.op == BlkOp::kFlush) {
    request.length_bytes = 0;
    return limits_.has_flush ? BlkStatus::kOk : BlkStatus::kUnsupported;
  }
  const std::uint64_t block_mask = limits_.block_bytes - 1;
  if (moves_data(request.op)) {
    request.length_bytes = 0;
    for (const BlkSegment& segment : request.segments) {
      // Aligned memory makes every cut at a page or segment limit a cut between blocks of the disk.
      std::uint64_t both = reinterpret_cast<std::uintptr_t>(segment.data) | segment.size_bytes;
      if (segment.size_bytes == 0 || (both & block_mask) != 0) return BlkStatus::kBadRequest;
      request.length_bytes += segment.size_bytes;
    }
  }
  if (request.op == BlkOp::kDiscard && limits_.discard_bytes == 0) return BlkStatus::kUnsupported;
  if (request.op == BlkOp::kWriteZeroes && limits_.write_zeroes_bytes == 0) return BlkStatus::kUnsupported;
  if (request.op != BlkOp::kRead && limits_.read_only) return BlkStatus::kBadRequest;
  if (request.length_bytes == 0 || ((request.offset_bytes | request.length_bytes) & block_mask) != 0) return BlkStatus::kBadRequest;
  std::uint64_t capacity = capacity_bytes();
  if (request.offset_bytes > capacity || request.length_bytes > capacity - request.offset_bytes) return BlkStatus::kBadRequest;
  return BlkStatus::kOk;
}

void VirtioBlk::submit(unsigned cpu, BlkRequest& request) {
  KELDA_ASSERT(request.complete != nullptr);
  request.issued_bytes = 0;
  request.segment_index = request.segment_offset = 0;
  request.parts_in_flight = 0;
  request.issued = false;
  request.status = lost() ? BlkStatus::kDeviceLost : check(request);
  Queue& queue = queue_of(cpu);
  Locked guard(queue);
  ++queue.in_flight;
  if (request.status != BlkStatus::kOk) {
    queue.done.push(request);
  } else if (!queue.waiting.empty() || !issue(queue, request)) {
    queue.waiting.push(request);  // (B2)
  }
}

// Issues parts until the request is through (true) or the ring is full.
bool VirtioBlk::issue(Queue& queue, BlkRequest& request) {
  while (!request.issued) {
    if (!issue_part(queue, request)) return false;
  }
  return true;
}

bool VirtioBlk::issue_part(Queue& queue, BlkRequest& request) {
  if (queue.free_slots.empty()) return false;
  std::uint16_t number = queue.free_slots.back();
  Slot& slot = queue.slots[number];
  queue.reads.assign(1, {queue.slot_address(number), sizeof(slot.header)});
  queue.writes.clear();
  const std::size_t index = request.segment_index;
  const std::size_t offset = request.segment_offset;
  std::uint64_t part_bytes = 0;
  slot.header = {device_type_of(request.op), 0, (request.offset_bytes + request.issued_bytes) / kSectorBytes};
  if (!build_part(queue, request, part_bytes)) {
    request.issued = true;
    request.status = BlkStatus::kBadRequest;
    if (request.parts_in_flight == 0) queue.done.push(request);
    return true;
  }
  queue.writes.push_back({PhysAddr(queue.slot_address(number).value + offsetof(Slot, status)), 1});
  slot.status = 0xff;  // no verdict of the protocol: a device that writes none has failed
  if (!queue.ring->submit(queue.reads, queue.writes, &slot)) {
    request.segment_index = index;
    request.segment_offset = offset;
    return false;
  }
  queue.free_slots.pop_back();
  queue.slot_request[number] = &request;
  ++request.parts_in_flight;
  request.issued_bytes += part_bytes;
  request.issued = request.issued_bytes == request.length_bytes;
  return true;
}

// Adds what lies between header and status. False: the request's memory is nobody's.
bool VirtioBlk::build_part(Queue& queue, BlkRequest& request, std::uint64_t& part_bytes) {
  if (request.op == BlkOp::kFlush) return true;
  if (moves_data(request.op)) return gather_data(queue, request, part_bytes);
  bool discard = request.op == BlkOp::kDiscard;
  part_bytes = std::min(request.length_bytes - request.issued_bytes,
                        round_down(discard ? limits_.discard_bytes : limits_.write_zeroes_bytes, limits_.block_bytes));
  // Write-zeroes keeps its space: only a discard gives it back.
  std::uint16_t number = queue.free_slots.back();
  Slot& slot = queue.slots[number];
  slot.range = {slot.header.sector, static_cast<std::uint32_t>(part_bytes / kSectorBytes), 0};
  slot.header.sector = 0;
  queue.reads.push_back({PhysAddr(queue.slot_address(number).value + offsetof(Slot, range)), sizeof(slot.range)});
  return true;
}

bool VirtioBlk::gather_data(Queue& queue, BlkRequest& request, std::uint64_t& part_bytes) {
  std::vector<DmaSegment>& out = request.op == BlkOp::kRead ? queue.writes : queue.reads;
  // A ring too full for the largest part takes one that fits into an indirect table: a large request then makes its way
  // between small ones instead of holding up everything behind it until half the ring is free.
  std::size_t most = limits_.segment_count;
  if (queue.ring->free_descriptors() < most + 2) most = std::min(most, VirtQueue::kIndirectSegments - 2);
  // The header, where it stands in `out` already, is no data segment.
  DmaMemory::Limits limits{limits_.segment_bytes, out.size() + most};
  while (request.segment_index < request.segments.size()) {
    const BlkSegment& segment = request.segments[request.segment_index];
    std::size_t left = segment.size_bytes - request.segment_offset;
    Result<std::size_t> covered = memory_.gather(segment.data + request.segment_offset, left, limits, out);
    if (!covered) return false;
    part_bytes += *covered;
    if (*covered < left) {
      request.segment_offset += *covered;
      break;
    }
    ++request.segment_index;
    request.segment_offset = 0;
  }
  return true;
}

void VirtioBlk::kick(unsigned cpu) {
  Queue& queue = queue_of(cpu);
  Locked guard(queue);
  if (queue.ring->kick()) transport_->notify(queue.index);
}

void VirtioBlk::finish_part(Queue& queue, BlkRequest& request, BlkStatus status) {
  if (request.status == BlkStatus::kOk) request.status = status;
  --request.parts_in_flight;
  if (request.issued && request.parts_in_flight == 0) queue.done.push(request);
}

void VirtioBlk::reap(Queue& queue) {
  while (std::optional<VirtQueue::Completion> completion = queue.ring->poll()) {
    std::uint16_t slot = queue.slot_of(completion->token);
    queue.free_slots.push_back(slot);
    finish_part(queue, *queue.slot_request[slot], status_of(queue.slots[slot].status));
  }
  if (queue.ring->broken()) lose();
}

// A request whose part failed goes on with its other parts: the device may be able to do them, and a caller that got
// half of a read must not trust any of it anyway.
void VirtioBlk::issue_waiting(Queue& queue) {
  while (!queue.waiting.empty() && issue(queue, *queue.waiting.head)) queue.waiting.pop();
}

// (B4) After the reset nothing is the device's any more.
void VirtioBlk::abandon(Queue& queue) {
  while (BlkRequest* request = queue.waiting.pop()) {
    request->issued = true;
    if (request->parts_in_flight > 0) continue;  // falls due with its last part
    request->status = BlkStatus::kDeviceLost;
    queue.done.push(*request);
  }
  while (void* token = queue.ring->abandon_one()) {
    finish_part(queue, *queue.slot_request[queue.slot_of(token)], BlkStatus::kDeviceLost);
  }
}

std::size_t VirtioBlk::poll(unsigned cpu) {
  notice_changes();
  Queue& queue = queue_of(cpu);
  BlkRequestList done;
  {
    Locked guard(queue);
    reap(queue);
    if (lost()) {
      abandon(queue);
    } else if (!queue.waiting.empty()) {
      issue_waiting(queue);
      if (queue.ring->kick()) transport_->notify(queue.index);
    }
    done = queue.done;
    queue.done = {};
    for (BlkRequest* request = done.head; request != nullptr; request = request->next) --queue.in_flight;
  }
  std::size_t count = 0;
  while (BlkRequest* request = done.pop()) {
    ++count;
    request->complete(*request);
  }
  return count;
}

bool VirtioBlk::arm(unsigned cpu) {
  Queue& queue = queue_of(cpu);
  Locked guard(queue);
  if (!queue.done.empty() || config_pending_.load(std::memory_order_relaxed)) return false;
  if (lost()) return queue.in_flight == 0;
  // Before the ring is armed: the interrupt that this arming causes finds the bit. One caused by another CPU may take it
  // away earlier, and then wakes this CPU, which is a wake-up too many and not one too few.
  if (queue.is_shared) sleepers_.fetch_or(std::uint64_t{1} << cpu, std::memory_order_seq_cst);
  bool armed = queue.ring->arm_interrupt();
  if (!armed && !queue.is_shared) queue.ring->disarm_interrupt();
  return armed;
}

void VirtioBlk::disarm(unsigned cpu) {
  Queue& queue = queue_of(cpu);
  // Another CPU may be asleep on a shared queue: it stays armed.
  if (!queue.is_shared) queue.ring->disarm_interrupt();
}

std::size_t VirtioBlk::in_flight(unsigned cpu) const {
  Queue& queue = queue_of(cpu);
  Locked guard(queue);
  return queue.in_flight;
}

}  // namespace kelda::kernel
