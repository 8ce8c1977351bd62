// Memory orders. Driver and device are two CPUs that share the rings, so this is ordinary lock-free code:
//  - an index published by one side (available idx, used idx) is a release store, read by the other with acquire: the
//    entries below the index are complete when it is seen;
//  - both "may I skip the notification" decisions are a store followed by a load of what the other side stores
//    (Dekker): driver: store avail idx, load avail_event; device: store avail_event, load avail idx. If a side's load
//    could overtake its store, both might read old values and both sleep. Hence both are sequentially consistent. The
//    same holds for used_event and used idx. Emulators may drop even that order: hence the fence (emulation.h).
#include "kernel/virtio_queue.h"

#define VIRTIO_RING_NO_LEGACY
#include <linux/virtio_ring.h>

#include <atomic>
#include <bit>

#include "common/assert.h"

namespace kelda::kernel {
namespace {

static_assert(std::endian::native == std::endian::little, "ring fields are little-endian and accessed directly");
static_assert(sizeof(vring_desc) == 16 && sizeof(vring_used_elem) == 8);
static_assert(offsetof(vring_avail, ring) == 4 && offsetof(vring_used, ring) == 4);

std::atomic_ref<std::uint16_t> shared(std::uint16_t& field) { return std::atomic_ref<std::uint16_t>(field); }

std::size_t available_offset(std::size_t size) { return size * sizeof(vring_desc); }
std::size_t used_offset(std::size_t size) { return round_up(available_offset(size) + 6 + 2 * size, 64); }
std::size_t indirect_offset(std::size_t size) { return round_up(used_offset(size) + 6 + 8 * size, 64); }

// The event fields lie behind the rings (section 2.7.10).
std::uint16_t& used_event(vring_avail* available, std::size_t size) { return available->ring[size]; }
std::uint16_t& available_event(vring_used* used, std::size_t size) {
  std::byte* behind_ring = reinterpret_cast<std::byte*>(used) + offsetof(vring_used, ring) + size * sizeof(vring_used_elem);
  return *reinterpret_cast<std::uint16_t*>(behind_ring);
}

// Has the index moved past `event` on its way from `before` to `after`? All modulo 2^16.
bool passed(std::uint16_t event, std::uint16_t after, std::uint16_t before) {
  return static_cast<std::uint16_t>(after - event - 1) < static_cast<std::uint16_t>(after - before);
}

}  // namespace

std::size_t VirtQueue::memory_bytes(const Options& options) {
  std::size_t tables = options.indirect ? options.size * kIndirectSegments * sizeof(vring_desc) : 0;
  return indirect_offset(options.size) + tables;
}

VirtQueue::VirtQueue(const Options& options, std::byte* memory, PhysAddr base)
    : size_(options.size),
      event_index_(options.event_index),
      indirect_(options.indirect),
      fence_(options.fence),
      base_(base),
      descriptors_(reinterpret_cast<vring_desc*>(memory)),
      available_(reinterpret_cast<vring_avail*>(memory + available_offset(options.size))),
      used_(reinterpret_cast<vring_used*>(memory + used_offset(options.size))),
      next_free_(std::make_unique<std::uint16_t[]>(options.size)),
      chains_(std::make_unique<Chain[]>(options.size)),
      free_count_(options.size) {
  KELDA_ASSERT(std::has_single_bit(options.size) && options.size <= 32768);
  KELDA_ASSERT(base.value % 16 == 0 && reinterpret_cast<std::uintptr_t>(memory) % 16 == 0);
  if (indirect_) indirect_tables_ = reinterpret_cast<vring_desc*>(memory + indirect_offset(size_));
  for (std::uint16_t i = 0; i < size_; ++i) next_free_[i] = i + 1;
  disarm_interrupt();
}

VirtQueue::Addresses VirtQueue::addresses() const {
  return {base_, PhysAddr(base_.value + available_offset(size_)), PhysAddr(base_.value + used_offset(size_))};
}

// Short chains go into the ring while it is mostly empty: the device then reads them from memory it has mapped
// already. Once descriptors get scarce, an indirect table makes a chain cost one of them.
bool VirtQueue::use_indirect(std::size_t segments) const {
  return indirect_ && segments > 1 && segments <= kIndirectSegments && free_count_ < size_ / 2 + segments;
}

bool VirtQueue::can_submit(std::size_t segments) const {
  if (broken_ || segments == 0) return false;
  return free_count_ >= (use_indirect(segments) ? 1 : segments);
}

std::uint16_t VirtQueue::take_descriptor() {
  std::uint16_t slot = free_head_;
  free_head_ = next_free_[slot];
  --free_count_;
  return slot;
}

bool VirtQueue::submit(std::span<const DmaSegment> device_reads, std::span<const DmaSegment> device_writes,
                       void* token) {
  KELDA_ASSERT(token != nullptr);
  std::size_t segments = device_reads.size() + device_writes.size();
  if (!can_submit(segments)) return false;
  std::uint16_t head = use_indirect(segments) ? submit_indirect(device_reads, device_writes)
                                              : submit_direct(device_reads, device_writes);
  chains_[head].token = token;
  ++in_flight_;
  available_->ring[available_index_ & (size_ - 1)] = head;
  ++available_index_;
  return true;
}

std::uint16_t VirtQueue::submit_direct(std::span<const DmaSegment> reads, std::span<const DmaSegment> writes) {
  std::size_t left = reads.size() + writes.size();
  std::uint16_t head = free_head_;
  chains_[head].count = static_cast<std::uint16_t>(left);
  auto add = [&](const DmaSegment& segment, std::uint16_t flags) {
    std::uint16_t slot = take_descriptor();
    if (--left > 0) flags |= VRING_DESC_F_NEXT;
    // The successor is the new head of the free list: the next one taken.
    descriptors_[slot] = {segment.address.value, segment.size_bytes, flags, left > 0 ? free_head_ : std::uint16_t{0}};
  };
  for (const DmaSegment& segment : reads) add(segment, 0);
  for (const DmaSegment& segment : writes) add(segment, VRING_DESC_F_WRITE);
  return head;
}

std::uint16_t VirtQueue::submit_indirect(std::span<const DmaSegment> reads, std::span<const DmaSegment> writes) {
  std::uint16_t head = take_descriptor();
  vring_desc* table = indirect_tables_ + head * kIndirectSegments;
  std::uint16_t count = static_cast<std::uint16_t>(reads.size() + writes.size());
  std::uint16_t i = 0;
  auto add = [&](const DmaSegment& segment, std::uint16_t flags) {
    std::uint16_t next = i + 1;
    bool last = next == count;
    if (!last) flags |= VRING_DESC_F_NEXT;
    table[i] = {segment.address.value, segment.size_bytes, flags, last ? std::uint16_t{0} : next};
    i = next;
  };
  for (const DmaSegment& segment : reads) add(segment, 0);
  for (const DmaSegment& segment : writes) add(segment, VRING_DESC_F_WRITE);
  std::uint64_t offset = reinterpret_cast<std::byte*>(table) - reinterpret_cast<std::byte*>(descriptors_);
  descriptors_[head] = {base_.value + offset, static_cast<std::uint32_t>(count * sizeof(vring_desc)),
                        VRING_DESC_F_INDIRECT, 0};
  chains_[head].count = 1;
  return head;
}

bool VirtQueue::kick() {
  if (broken_ || published_index_ == available_index_) return false;
  std::uint16_t before = published_index_;
  // (Q3): this store and the load below are the driver's half of the first pair.
  shared(available_->idx).store(available_index_, std::memory_order_seq_cst);
  published_index_ = available_index_;
  if (fence_ != nullptr) fence_();
  if (event_index_) {
    std::uint16_t event = shared(available_event(used_, size_)).load(std::memory_order_seq_cst);
    return passed(event, available_index_, before);
  }
  return (shared(used_->flags).load(std::memory_order_seq_cst) & VRING_USED_F_NO_NOTIFY) == 0;
}

std::uint16_t VirtQueue::device_used_index() const {
  return shared(used_->idx).load(std::memory_order_acquire);
}

bool VirtQueue::has_completions() const { return !broken_ && device_used_index() != used_index_; }

std::optional<VirtQueue::Completion> VirtQueue::poll() {
  if (!has_completions()) return std::nullopt;
  const vring_used_elem entry = used_->ring[used_index_ & (size_ - 1)];
  if (entry.id >= size_ || chains_[entry.id].token == nullptr) {  // (Q2)
    broken_ = true;
    return std::nullopt;
  }
  ++used_index_;
  std::uint16_t head = static_cast<std::uint16_t>(entry.id);
  Completion completion{chains_[head].token, entry.len};
  release_chain(head);
  return completion;
}

void VirtQueue::release_chain(std::uint16_t head) {
  // The chain is followed through our own list: the device cannot have changed it.
  std::uint16_t count = chains_[head].count;
  std::uint16_t tail = head;
  for (std::uint16_t i = 1; i < count; ++i) tail = next_free_[tail];
  next_free_[tail] = free_head_;
  free_head_ = head;
  free_count_ += count;
  chains_[head] = {};
  --in_flight_;
}

bool VirtQueue::arm_interrupt() {
  // (Q4): this store and the load below are the driver's half of the second pair.
  if (event_index_) {
    shared(used_event(available_, size_)).store(used_index_, std::memory_order_seq_cst);
  } else {
    shared(available_->flags).store(0, std::memory_order_seq_cst);
  }
  if (fence_ != nullptr) fence_();
  return broken_ || shared(used_->idx).load(std::memory_order_seq_cst) == used_index_;
}

void VirtQueue::disarm_interrupt() {
  if (event_index_) {
    // One behind: passed again only after the index has gone all the way round.
    shared(used_event(available_, size_)).store(used_index_ - 1, std::memory_order_relaxed);
  } else {
    shared(available_->flags).store(VRING_AVAIL_F_NO_INTERRUPT, std::memory_order_relaxed);
  }
}

void* VirtQueue::abandon_one() {
  for (std::uint16_t head = 0; head < size_; ++head) {
    if (chains_[head].token == nullptr) continue;
    void* token = chains_[head].token;
    release_chain(head);
    return token;
  }
  return nullptr;
}

}  // namespace kelda::kernel
