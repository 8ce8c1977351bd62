// A queue of bytes that takes memory only while it holds some: grows by doubling, is given back when it runs empty.
// Not thread-safe. Its memory comes from lwIP's account (lwip_port.h).
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>

#include "common/types.h"
#include "net/lwip_port.h"

extern "C" void* kelda_lwip_malloc(std::size_t size_bytes);
extern "C" void kelda_lwip_free(void* memory);

namespace kelda::net::lwip {

class ByteRing {
 public:
  static constexpr std::size_t kFirstBytes = 1024;
  static constexpr std::size_t kLimitBytes = 64 * 1024;

  ~ByteRing() { kelda_lwip_free(memory_); }
  ByteRing() = default;
  ByteRing(const ByteRing&) = delete;
  ByteRing& operator=(const ByteRing&) = delete;

  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }

  // Takes as much of `data` as fits, growing if it may; returns how much.
  std::size_t append(Bytes data) {
    while (capacity_ - size_ < data.size() && grow()) {
    }
    const std::size_t taken = std::min(data.size(), capacity_ - size_);
    const std::size_t at = (start_ + size_) & (capacity_ - 1);
    const std::size_t first = std::min(taken, capacity_ - at);
    if (taken > 0) std::memcpy(memory_ + at, data.data(), first);
    if (taken > first) std::memcpy(memory_, data.data() + first, taken - first);
    size_ += taken;
    return taken;
  }

  // The longest contiguous run at the front.
  Bytes front() const { return {memory_ + start_, std::min(size_, capacity_ - start_)}; }

  void drop(std::size_t count) {
    size_ -= count;
    start_ = (start_ + count) & (capacity_ - 1);
    if (size_ == 0) clear();
  }

  void clear() {
    kelda_lwip_free(memory_);
    memory_ = nullptr;
    capacity_ = start_ = size_ = 0;
  }

 private:
  bool grow() {
    const std::size_t wanted = capacity_ == 0 ? kFirstBytes : capacity_ * 2;
    if (wanted > kLimitBytes || (wanted > kConnectionFloorBytes && memory_is_scarce())) return false;
    auto* memory = static_cast<std::byte*>(kelda_lwip_malloc(wanted));
    if (memory == nullptr) return false;
    const Bytes run = front();
    if (size_ > 0) std::memcpy(memory, run.data(), run.size());
    if (size_ > run.size()) std::memcpy(memory + run.size(), memory_, size_ - run.size());
    kelda_lwip_free(memory_);
    memory_ = memory;
    capacity_ = wanted;
    start_ = 0;
    return true;
  }

  std::byte* memory_ = nullptr;
  std::size_t capacity_ = 0;  // a power of two
  std::size_t start_ = 0;
  std::size_t size_ = 0;
};

}  // namespace kelda::net::lwip
