// How much the stack has promised to take: the sum of the receive windows of all connections.
//
// A window that is advertised and then not honoured makes the peer send everything again and again, so windows start
// small, grow with what is really read, and stop growing when the sum reaches the pool's limit. Stack's core only.
#pragma once

#include <algorithm>
#include <cstddef>

namespace kelda::net::lwip {

class WindowPool {
 public:
  // Every connection gets this much, whatever the others have: five full segments.
  static constexpr std::size_t kFirstBytes = 8 * 1024;

  WindowPool(std::size_t limit_bytes, std::size_t largest_window_bytes)
      : limit_bytes_(limit_bytes), largest_window_bytes_(largest_window_bytes) {}

  std::size_t largest_window_bytes() const { return largest_window_bytes_; }
  void promise(std::size_t bytes) { promised_bytes_ += bytes; }
  void give_back(std::size_t bytes) { promised_bytes_ -= bytes; }
  bool in_use() const { return promised_bytes_ > 0; }
  bool exhausted() const { return promised_bytes_ > limit_bytes_; }

  // Doubles a window if the pool allows; returns the growth.
  std::size_t grow(std::size_t window_bytes) {
    const std::size_t step = std::min(window_bytes, largest_window_bytes_ - window_bytes);
    if (promised_bytes_ + step > limit_bytes_) return 0;
    promised_bytes_ += step;
    return step;
  }

 private:
  const std::size_t limit_bytes_;
  const std::size_t largest_window_bytes_;
  std::size_t promised_bytes_ = 0;
};

}  // namespace kelda::net::lwip
