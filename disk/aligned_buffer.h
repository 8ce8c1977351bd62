// Memory that a device can transfer to and from: a multiple of kPageBytes, aligned to kPageBytes.
#pragma once

#include <memory>
#include <new>

#include "common/types.h"

namespace kelda::disk {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // Zeroed.
  explicit AlignedBuffer(std::size_t size_bytes) : size_bytes_(round_up(size_bytes, kPageBytes)) {
    memory_.reset(static_cast<std::byte*>(::operator new(size_bytes_, std::align_val_t{kPageBytes})));
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
    void operator()(std::byte* memory) const { ::operator delete(memory, std::align_val_t{kPageBytes}); }
  };
  std::unique_ptr<std::byte[], Free> memory_;
  std::size_t size_bytes_ = 0;
};

}  // namespace kelda::disk
