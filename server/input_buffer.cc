#include "server/input_buffer.h"

#include <algorithm>
#include <cstring>

#include "common/assert.h"

namespace kelda::server {

void InputBuffer::reallocate(std::size_t capacity) {
  const std::size_t size = end_ - begin_;
  KELDA_ASSERT(capacity >= size);
  auto bytes = std::make_unique_for_overwrite<char[]>(capacity);
  if (size > 0) std::memcpy(bytes.get(), bytes_.get() + begin_, size);
  bytes_ = std::move(bytes);
  capacity_ = capacity;
  begin_ = 0;
  end_ = size;
}

MutableBytes InputBuffer::room(std::size_t needed) {
  const std::size_t size = end_ - begin_;
  const std::size_t earned = size + std::max(size, kReadAheadBytes);
  std::size_t wanted = std::max({capacity_, kSmallBytes, std::min(needed, earned)});
  if (read_filled_room_ && capacity_ < kReadAheadBytes) wanted = std::max(wanted, capacity_ * 2);
  if (wanted <= size) wanted = size * 2;
  if (wanted > capacity_) {
    // By half at least: a request that comes in many pieces must not be copied at each of them.
    reallocate(std::max(wanted, capacity_ + capacity_ / 2));
  } else if (end_ == capacity_ || (begin_ > 0 && capacity_ - end_ < capacity_ / 4)) {
    std::memmove(bytes_.get(), bytes_.get() + begin_, size);
    begin_ = 0;
    end_ = size;
  }
  KELDA_ASSERT(end_ < capacity_);
  return {reinterpret_cast<std::byte*>(bytes_.get() + end_), capacity_ - end_};
}

void InputBuffer::filled(std::size_t count) {
  KELDA_ASSERT(count <= capacity_ - end_);
  end_ += count;
  read_filled_room_ = end_ == capacity_;
}

void InputBuffer::consume(std::size_t count) {
  KELDA_ASSERT(count <= end_ - begin_);
  begin_ += count;
  if (begin_ == end_) begin_ = end_ = 0;
}

void InputBuffer::shrink() {
  if (begin_ != end_ || read_filled_room_ || capacity_ <= kSmallBytes) return;
  reallocate(kSmallBytes);
}

}  // namespace kelda::server
