// Memory that a device can transfer to and from: a multiple of kPageBytes, aligned to kPageBytes.
#pragma once

#include <cstdlib>
#include <memory>

#include "common/assert.h"
#include "common/types.h"

namespace kelda::disk {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Zeroed.
  explicit AlignedBuffer(std::size_t size_bytes) : size_bytes_(round_up(size_bytes, kPageBytes)) {
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, size_bytes_)));
    KELDA_ASSERT(memory_ != nullptr);
    clear();
  }

  std::byte* data() { return memory_.get(); }
  const std::byte* data() const { return memory_.get(); }
  std::size_t size() const { return size_bytes_; }
  MutableBytes span() { return {memory_.get(), size_bytes_}; }
  Bytes span() const { return {memory_.get(), size_bytes_}; }
  void clear() { __builtin_memset(memory_.get(), 0, size_bytes_); }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte[], Free> memory_;
  std::size_t size_bytes_ = 0;
};

}  // namespace kelda::disk
