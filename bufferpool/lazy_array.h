// A zeroed array that takes memory only where it is touched: state words for a disk of many TiB cost address space.
#pragma once

#include <type_traits>
#include <utility>

#include "common/result.h"
#include "common/types.h"

namespace kelda::bufferpool {

// Anonymous memory without reservation; kOutOfMemory when the address space is refused.
Result<std::byte*> map_lazily(std::uint64_t size_bytes);
void unmap_lazily(std::byte* memory, std::uint64_t size_bytes);

// T is valid when all its bytes are zero.
template <class T>
class LazyArray {
  static_assert(std::is_trivially_destructible_v<T>);

 public:
  LazyArray() = default;
  static Result<LazyArray> create(std::uint64_t count) {
    LazyArray array;
    array.items_ = reinterpret_cast<T*>(TRY(map_lazily(count * sizeof(T))));
    array.count_ = count;
    return array;
  }
  LazyArray(LazyArray&& o) noexcept : items_(std::exchange(o.items_, nullptr)), count_(std::exchange(o.count_, 0)) {}
  LazyArray& operator=(LazyArray&& o) noexcept {
    std::swap(items_, o.items_);
    std::swap(count_, o.count_);
    return *this;
  }
  ~LazyArray() {
    if (items_ != nullptr) unmap_lazily(reinterpret_cast<std::byte*>(items_), count_ * sizeof(T));
  }
  T& operator[](std::uint64_t i) const { return items_[i]; }
  T* data() const { return items_; }
  std::uint64_t size() const { return count_; }

 private:
  T* items_ = nullptr;
  std::uint64_t count_ = 0;
};

}  // namespace kelda::bufferpool
