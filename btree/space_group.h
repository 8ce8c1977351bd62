// One group of pages in memory: the bits of its space map and what is claimed beyond them. Not synchronised.
#pragma once

#include <array>
#include <bit>
#include <optional>

#include "btree/space_map.h"

namespace kelda::btree {

class SpaceGroup {
 public:
  static constexpr unsigned kBits = disk::kPagesPerSpaceMap;
  static constexpr unsigned kWords = kBits / 64;
  static_assert(kBits % 64 == 0);

  // `map`: the page; `page_count`: pages of the group that exist; `taken`: leading pages that are never handed out.
  SpaceGroup(const std::byte* map, unsigned page_count, unsigned taken) {
    for (unsigned i = 0; i < kWords; ++i) std::memcpy(&bits_[i], map + disk::kSpaceMapHeaderBytes + i * 8, 8);
    for (unsigned bit = 0; bit < kBits; ++bit) {
      if (bit >= page_count || bit < taken) bits_[bit / 64] |= mask(bit);
    }
    for (const std::uint64_t word : bits_) free_ += static_cast<unsigned>(std::popcount(~word));
  }

  unsigned free() const { return free_; }
  bool test(unsigned bit) const { return (bits_[bit / 64] & mask(bit)) != 0; }
  void clear(unsigned bit) {
    bits_[bit / 64] &= ~mask(bit);
    ++free_;
    longest_run_ = kBits;
  }

  // Takes one that is free.
  void claim(unsigned bit) { set(bit); }

  // Takes the first free bit at or after `from`, else the first of all.
  std::optional<unsigned> take(unsigned from) {
    if (free_ == 0) return std::nullopt;
    for (unsigned i = 0; i <= kWords; ++i) {
      const unsigned word = (from / 64 + i) % kWords;
      std::uint64_t free_bits = ~bits_[word];
      if (i == 0) free_bits &= ~std::uint64_t{0} << from % 64;
      if (free_bits == 0) continue;
      const unsigned bit = word * 64 + static_cast<unsigned>(std::countr_zero(free_bits));
      set(bit);
      return bit;
    }
    return std::nullopt;
  }

  // Takes `count` adjacent bits; the first of them.
  std::optional<unsigned> take_run(unsigned count) {
    if (free_ < count || longest_run_ < count) return std::nullopt;
    unsigned run = 0;
    for (unsigned bit = 0; bit < kBits;) {
      const std::uint64_t word = bits_[bit / 64];
      if (bit % 64 == 0 && word == ~std::uint64_t{0}) {
        run = 0;
        bit += 64;
        continue;
      }
      run = (word & mask(bit)) == 0 ? run + 1 : 0;
      ++bit;
      if (run == count) {
        for (unsigned i = bit - count; i < bit; ++i) set(i);
        return bit - count;
      }
    }
    longest_run_ = count - 1;
    return std::nullopt;
  }

 private:
  static std::uint64_t mask(unsigned bit) { return std::uint64_t{1} << bit % 64; }
  void set(unsigned bit) {
    bits_[bit / 64] |= mask(bit);
    --free_;
  }

  std::array<std::uint64_t, kWords> bits_;
  unsigned free_ = 0;
  unsigned longest_run_ = kBits;  // no free run is longer
};

}  // namespace kelda::btree
