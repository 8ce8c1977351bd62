// Keys of the benchmark: record numbers, uniform or zipfian, scattered over the key space.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

namespace kelda::tools {

// splitmix64 (Steele, Lea, Flood 2014): good enough to choose keys, and the same everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

 private:
  std::uint64_t state_;
};

// Zipfian ranks after Gray et al., "Quickly Generating Billion-Record Synthetic Databases" (SIGMOD 1994).
class KeyChooser {
 public:
  KeyChooser(std::uint64_t count, double theta) : count_(count), theta_(theta) {
    if (theta_ <= 0) return;
    for (std::uint64_t i = 1; i <= count_; ++i) zeta_ += 1.0 / std::pow(static_cast<double>(i), theta_);
    const double zeta2 = 1.0 + 1.0 / std::pow(2.0, theta_);
    alpha_ = 1.0 / (1.0 - theta_);
    eta_ = (1.0 - std::pow(2.0 / static_cast<double>(count_), 1.0 - theta_)) / (1.0 - zeta2 / zeta_);
  }
  std::uint64_t next(Random& random) const {
    if (theta_ <= 0) return random.next() % count_;
    const double u = random.unit();
    const double uz = u * zeta_;
    if (uz < 1.0) return 0;
    if (uz < 1.0 + std::pow(0.5, theta_)) return 1;
    const auto rank =
        static_cast<std::uint64_t>(static_cast<double>(count_) * std::pow(eta_ * u - eta_ + 1.0, alpha_));
    return rank < count_ ? rank : count_ - 1;
  }

 private:
  std::uint64_t count_;
  double theta_, zeta_ = 0, alpha_ = 0, eta_ = 0;
};

// 16 hexadecimal digits of a bijection of the record number: neighbours in rank are not neighbours in the tree.
inline void make_key(std::uint64_t record, std::string& key) {
  std::uint64_t scattered = record * 0x9e3779b97f4a7c15ull;
  key.resize(16);
  for (std::size_t i = 0; i < 16; ++i, scattered <<= 4) key[i] = "0123456789abcdef"[scattered >> 60];
}

}  // namespace kelda::tools
