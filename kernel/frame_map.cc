#include "kernel/frame_map.h"

#include <bit>

namespace kelda::kernel {

namespace {
constexpr std::uint64_t words(std::uint64_t bits) {
  return (bits + 63) / 64;
}
}  // namespace

std::size_t FrameMap::storage_bytes(std::uint64_t frame_count) {
  std::uint64_t leaf = words(frame_count), middle = words(leaf), top = words(middle);
  return (leaf + middle + top) * sizeof(std::uint64_t);
}

void FrameMap::init(std::uint64_t* storage, std::uint64_t frame_count) {
  std::uint64_t leaf = words(frame_count), middle = words(leaf);
  frame_count_ = frame_count;
  top_words_ = words(middle);
  leaf_ = storage;
  middle_ = leaf_ + leaf;
  top_ = middle_ + middle;
}

void FrameMap::insert(std::uint64_t frame) {
  std::uint64_t word = frame / 64, group = word / 64;
  leaf_[word] |= 1ull << frame % 64;
  middle_[group] |= 1ull << word % 64;
  top_[group / 64] |= 1ull << group % 64;
  if (group / 64 < top_hint_) top_hint_ = group / 64;
}

void FrameMap::erase(std::uint64_t frame) {
  std::uint64_t word = frame / 64, group = word / 64;
  if (leaf_[word] &= ~(1ull << frame % 64)) return;
  if (middle_[group] &= ~(1ull << word % 64)) return;
  top_[group / 64] &= ~(1ull << group % 64);
}

void FrameMap::insert_run(std::uint64_t begin, std::uint64_t end) {
  while (begin < end) {
    if (begin % 64 == 0 && end - begin >= 64) {
      insert(begin);  // sets the summaries
      leaf_[begin / 64] = ~0ull;
      begin += 64;
    } else {
      insert(begin++);
    }
  }
}

std::uint64_t FrameMap::lowest() const {
  for (std::uint64_t t = top_hint_; t < top_words_; ++t) {
    if (!top_[t]) continue;
    top_hint_ = t;
    std::uint64_t group = t * 64 + static_cast<unsigned>(std::countr_zero(top_[t]));
    std::uint64_t word = group * 64 + static_cast<unsigned>(std::countr_zero(middle_[group]));
    return word * 64 + static_cast<unsigned>(std::countr_zero(leaf_[word]));
  }
  return kNoFrame;
}

std::uint64_t FrameMap::next(std::uint64_t frame, bool member) const {
  while (frame < frame_count_) {
    std::uint64_t word = leaf_[frame / 64];
    if (!member) word = ~word;
    word >>= frame % 64;
    if (word) {
      frame += static_cast<unsigned>(std::countr_zero(word));
      return frame < frame_count_ ? frame : frame_count_;
    }
    frame = (frame / 64 + 1) * 64;
  }
  return frame_count_;
}

std::uint64_t FrameMap::find_run(std::uint64_t count, std::uint64_t align) const {
  std::uint64_t begin = 0;
  for (;;) {
    begin = next(begin, true);
    begin = (begin + align - 1) / align * align;
    if (begin >= frame_count_ || frame_count_ - begin < count) return kNoFrame;
    if (!contains(begin)) continue;
    std::uint64_t end = next(begin, false);
    if (end - begin >= count) return begin;
    begin = end;
  }
}

}  // namespace kelda::kernel
