// What the pointers of the C interface are: numbers that are looked up, not addresses.
//
// Contract: a handle names a slot and which of its users, one after the other, is meant. find() gives null for a handle that
// was given back, was never given out, or is of another kind: so closing twice or a stray pointer is an error, not a crash.
// Slots are never returned. Thread-safe; that nobody gives back a handle which another thread uses at the time is up to the
// caller.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <new>
#include <vector>

namespace kelda::engine {

template <class Object>
class Handles {
 public:
  explicit Handles(std::uint64_t kind) : kind_(kind) {}

  // Null: out of memory, or too many.
  void* give_out(Object* object) {
    const std::scoped_lock guard(mutex_);
    std::uint32_t index;
    if (!free_.empty()) {
      index = free_.back();
    } else {
      if (used_ == kBlocks * kBlockSlots) return nullptr;
      std::atomic<Slot*>& block = blocks_[used_ / kBlockSlots];
      if (block.load(std::memory_order_relaxed) == nullptr) {
        free_.reserve((used_ / kBlockSlots + 1) * kBlockSlots);  // so that take_back() needs no memory
        block.store(new Slot[kBlockSlots], std::memory_order_release);
      }
      index = used_++;
    }
    Slot& slot = *slot_of(index);
    if (!free_.empty()) free_.pop_back();
    slot.object.store(object, std::memory_order_relaxed);
    const std::uint64_t use = slot.use.load(std::memory_order_relaxed) + 1;  // odd: in use
    slot.use.store(use, std::memory_order_release);
    return reinterpret_cast<void*>(use << (kIndexBits + kKindBits) | std::uint64_t{index} << kKindBits | kind_);
  }

  Object* find(const void* handle) const {
    const Slot* slot = slot_if_current(handle);
    return slot == nullptr ? nullptr : slot->object.load(std::memory_order_relaxed);
  }

  // The object; null if it was taken back before, or is none.
  Object* take_back(const void* handle) {
    const std::scoped_lock guard(mutex_);
    Slot* const slot = slot_if_current(handle);
    if (slot == nullptr) return nullptr;
    slot->use.fetch_add(1, std::memory_order_relaxed);
    free_.push_back(index_of(handle));
    return slot->object.exchange(nullptr, std::memory_order_relaxed);
  }

 private:
  static constexpr unsigned kKindBits = 3, kIndexBits = 21;
  static constexpr std::uint32_t kBlockSlots = 1024, kBlocks = (1u << kIndexBits) / kBlockSlots;

  struct Slot {
    std::atomic<Object*> object{nullptr};
    std::atomic<std::uint64_t> use{0};
  };

  static std::uint32_t index_of(const void* handle) {
    return static_cast<std::uint32_t>(reinterpret_cast<std::uint64_t>(handle) >> kKindBits) & ((1u << kIndexBits) - 1);
  }
  Slot* slot_of(std::uint32_t index) const {
    Slot* const block = blocks_[index / kBlockSlots].load(std::memory_order_acquire);
    return block == nullptr ? nullptr : block + index % kBlockSlots;
  }
  Slot* slot_if_current(const void* handle) const {
    const auto number = reinterpret_cast<std::uint64_t>(handle);
    if ((number & ((1u << kKindBits) - 1)) != kind_) return nullptr;
    Slot* const slot = slot_of(index_of(handle));
    if (slot == nullptr) return nullptr;
    const std::uint64_t use = slot->use.load(std::memory_order_acquire);
    return use % 2 == 1 && use << (kIndexBits + kKindBits) >> (kIndexBits + kKindBits) == number >> (kIndexBits + kKindBits) ? slot
                                                                                                                           : nullptr;
  }

  const std::uint64_t kind_;
  std::mutex mutex_;
  std::uint32_t used_ = 0;
  std::vector<std::uint32_t> free_;
  std::atomic<Slot*> blocks_[kBlocks] = {};
};

}  // namespace kelda::engine
