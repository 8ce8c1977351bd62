// Reading and writing of log payloads: little-endian integers, varints, byte strings.
//
// Contract: a Reader never leaves its bytes; after a read beyond the end ok() is false and everything reads as zero or
// empty. A Writer writes into memory that its owner made large enough (asserted).
#pragma once

#include <cstring>

#include "common/assert.h"
#include "common/types.h"

namespace kelda::btree {

class Reader {
 public:
  explicit Reader(Bytes bytes) : rest_(bytes) {}
  bool ok() const { return ok_; }
  bool at_end() const { return rest_.empty(); }

  template <class T>
  T number() {
    T value{};
    const Bytes bytes = take(sizeof value);
    if (ok_) std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = number<std::uint8_t>();
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if ((byte & 0x80) == 0) return value;
    }
    ok_ = false;
    return 0;
  }
  Bytes take(std::size_t count) {
    if (count > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    const Bytes bytes = rest_.first(count);
    rest_ = rest_.subspan(count);
    return bytes;
  }
  Bytes rest() { return take(rest_.size()); }

 private:
  Bytes rest_;
  bool ok_ = true;
};

// A buffer of fixed size on the stack.
template <std::size_t kCapacity>
class Writer {
 public:
  template <class T>
  void number(T value) {
    put({reinterpret_cast<const std::byte*>(&value), sizeof value});
  }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) number(static_cast<std::uint8_t>(value | 0x80));
    number(static_cast<std::uint8_t>(value));
  }
  void put(Bytes bytes) {
    KELDA_ASSERT(bytes.size() <= kCapacity - size_);
    if (!bytes.empty()) std::memcpy(data_ + size_, bytes.data(), bytes.size());
    size_ += bytes.size();
  }
  Bytes bytes() const { return {data_, size_}; }

 private:
  std::byte data_[kCapacity];
  std::size_t size_ = 0;
};

}  // namespace kelda::btree
