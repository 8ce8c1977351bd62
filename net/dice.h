// Where simulated faults are drawn from: splitmix64 (Steele, Lea, Flood 2014), reproducible from a seed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kelda::net {

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  bool hits(double probability) { return static_cast<double>(next() >> 11) < probability * 9007199254740992.0; }
  std::size_t between(std::size_t low, std::size_t high) { return low + next() % (high - low + 1); }

 private:
  std::uint64_t state_;
};

}  // namespace kelda::net
