// Takes an input apart: small numbers and byte strings, zero and empty after its end.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>

#include "common/types.h"

namespace kelda::fuzz {

class Input {
 public:
  explicit Input(Bytes bytes) : rest_(bytes) {}

  bool empty() const { return rest_.empty(); }
  Bytes take(std::size_t count) {
    const Bytes taken = rest_.first(std::min(count, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  Bytes rest() { return take(rest_.size()); }

  template <class T>
  T number() {
    T value{};
    const Bytes bytes = take(sizeof value);
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  std::uint8_t byte() { return number<std::uint8_t>(); }
  // Below n.
  std::size_t below(std::size_t n) { return number<std::uint16_t>() % n; }
  // Up to 255 bytes.
  std::string text() { return std::string(as_view(take(byte()))); }

 private:
  Bytes rest_;
};

// Overwrites parts of `target`: {offset u16, length u8, bytes} until the input, or `count`, is used up.
inline void patch(MutableBytes target, Input& input, unsigned count) {
  for (; count > 0 && !input.empty(); --count) {
    const std::size_t offset = input.below(target.size());
    const Bytes bytes = input.take(input.byte());
    const std::size_t length = std::min(bytes.size(), target.size() - offset);
    if (length > 0) std::memcpy(target.data() + offset, bytes.data(), length);
  }
}

}  // namespace kelda::fuzz
