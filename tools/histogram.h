// Latencies in buckets of about 3% width, from 1 ns to minutes, in 15 KiB.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace kelda::tools {

class Histogram {
 public:
  void add(std::uint64_t ns) {
    ++counts_[bucket_of(ns)];
    ++total_;
    if (ns > max_ns_) max_ns_ = ns;
  }
  void merge(const Histogram& other) {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    total_ += other.total_;
    if (other.max_ns_ > max_ns_) max_ns_ = other.max_ns_;
  }
  std::uint64_t total() const { return total_; }
  std::uint64_t max_ns() const { return max_ns_; }
  // Upper edge of the bucket that holds the given share (0.5: the median) of the values.
  std::uint64_t quantile_ns(double share) const {
    const auto wanted = static_cast<std::uint64_t>(share * static_cast<double>(total_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen > wanted) return upper_edge_ns(i) < max_ns_ ? upper_edge_ns(i) : max_ns_;
    }
    return max_ns_;
  }

 private:
  // 32 linear steps within each power of two.
  static constexpr unsigned kStepBits = 5;
  static std::size_t bucket_of(std::uint64_t ns) {
    if (ns < (1u << kStepBits)) return ns;
    const unsigned power = static_cast<unsigned>(std::bit_width(ns)) - 1;
    const std::size_t index = ((power - kStepBits + 1) << kStepBits) + ((ns >> (power - kStepBits)) & ((1u << kStepBits) - 1));
    return index < kBucketCount ? index : kBucketCount - 1;
  }
  static std::uint64_t upper_edge_ns(std::size_t index) {
    if (index < (1u << kStepBits)) return index;
    const std::size_t power = (index >> kStepBits) + kStepBits - 1;
    const std::uint64_t step = (index & ((1u << kStepBits) - 1)) + 1;
    return (std::uint64_t{1} << power) + (step << (power - kStepBits)) - 1;
  }

  static constexpr std::size_t kBucketCount = 60 << kStepBits;
  std::array<std::uint64_t, kBucketCount> counts_{};
  std::uint64_t total_ = 0, max_ns_ = 0;
};

}  // namespace kelda::tools
