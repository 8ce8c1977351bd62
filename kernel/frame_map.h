// A set of frame numbers as bits with two levels of summary above: lowest member in a few instructions, runs by
// scanning. Not thread-safe; memory.cc guards it. Private to kernel/.
//
// Invariant F1: a summary bit is set if and only if the word below it is not zero.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kelda::kernel {

inline constexpr std::uint64_t kNoFrame = ~std::uint64_t{0};

class FrameMap {
 public:
  // Bytes of zeroed memory for frames 0 .. frame_count - 1.
  static std::size_t storage_bytes(std::uint64_t frame_count);
  void init(std::uint64_t* storage, std::uint64_t frame_count);

  bool contains(std::uint64_t frame) const { return leaf_[frame / 64] >> frame % 64 & 1; }
  void insert(std::uint64_t frame);
  void erase(std::uint64_t frame);
  void insert_run(std::uint64_t begin, std::uint64_t end);

  // The lowest member at least as high as any frame below which there is none; kNoFrame when empty.
  std::uint64_t lowest() const;
  // The lowest run of `count` members that starts at a multiple of `align`; kNoFrame when there is none.
  std::uint64_t find_run(std::uint64_t count, std::uint64_t align) const;

 private:
  // First frame >= `frame` whose membership is `member`, at most `frame_count_`.
  std::uint64_t next(std::uint64_t frame, bool member) const;

  std::uint64_t frame_count_ = 0;
  std::uint64_t top_words_ = 0;
  std::uint64_t *leaf_ = nullptr, *middle_ = nullptr, *top_ = nullptr;
  mutable std::uint64_t top_hint_ = 0;  // no member lies below top word top_hint_
};

}  // namespace kelda::kernel
