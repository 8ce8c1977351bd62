// Stacks of fibers: lazily touched memory above a guard page, and a small cache of them for each core.
#pragma once

#include <cstddef>
#include <vector>

#include "common/result.h"

namespace kelda::runtime {

// Owns its mapping. An overflow runs into the guard page: SIGSEGV hosted, a panic that names the fiber bare.
class Stack {
 public:
  Stack() = default;
  Stack(Stack&& other) noexcept { swap(other); }
  Stack& operator=(Stack&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Stack();

  // size_bytes is rounded up to pages; the guard page comes on top. kOutOfMemory when the system refuses.
  static Result<Stack> allocate(std::size_t size_bytes);

  bool empty() const { return mapping_ == nullptr; }
  std::byte* bottom() const;  // lowest usable byte, just above the guard
  std::byte* top() const;
  std::size_t size_bytes() const { return size_bytes_; }
  // Gives the mapping up without unmapping it: for memory that a device may still write to.
  void leak() { mapping_ = nullptr; }

 private:
  void swap(Stack& other) noexcept;
  std::byte* mapping_ = nullptr;
  std::size_t size_bytes_ = 0;
};

// Keeps at most kMaxStacks of any sizes; used by one core only.
class StackCache {
 public:
  Result<Stack> take(std::size_t size_bytes);
  void give(Stack stack);

 private:
  static constexpr std::size_t kMaxStacks = 64;
  static constexpr std::size_t kMaxCachedBytes = 256 * 1024;  // larger ones go back to the system at once
  std::vector<Stack> stacks_;
};

}  // namespace kelda::runtime
