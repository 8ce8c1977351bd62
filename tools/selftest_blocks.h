// Blocks that say what they are: the stamp at the start of each one that a self-test writes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

#include "common/checksum.h"
#include "common/prng.h"
#include "common/types.h"

namespace kelda::tools {

struct BlockStamp {
  std::uint64_t checksum = 0;  // of all that follows in the block
  std::uint64_t magic = 0;
  std::uint64_t seed = 0;      // of the test
  std::uint64_t offset = 0;    // on the device
  std::uint64_t number = 0;    // which write: the higher, the newer
  std::uint64_t flushed_below = 0;  // selftest_order.h: all numbers below were durable before this one was written
  std::uint32_t index = 0, count = 0;  // block of the write
};
static_assert(sizeof(BlockStamp) == 56);

inline constexpr std::uint64_t kStampMagic = 0x5453'464c'4553'444bull;  // "KDSELFST"
inline constexpr std::size_t kChecksumFrom = offsetof(BlockStamp, magic);

inline void fill_block(MutableBytes block, BlockStamp stamp) {
  stamp.magic = kStampMagic;
  Prng noise(stamp.seed ^ stamp.offset ^ stamp.number << 32);
  for (std::size_t at = sizeof stamp; at < block.size(); at += 8) {
    const std::uint64_t word = noise.next();
    std::memcpy(block.data() + at, &word, std::min<std::size_t>(8, block.size() - at));
  }
  std::memcpy(block.data(), &stamp, sizeof stamp);
  stamp.checksum = checksum64(block.subspan(kChecksumFrom), 0);
  std::memcpy(block.data(), &stamp.checksum, sizeof stamp.checksum);
}

// Nothing: not a whole block of a self-test.
inline std::optional<BlockStamp> read_stamp(Bytes block) {
  BlockStamp stamp;
  std::memcpy(&stamp, block.data(), sizeof stamp);
  if (stamp.magic != kStampMagic || stamp.checksum != checksum64(block.subspan(kChecksumFrom), 0)) return std::nullopt;
  return stamp;
}

// A write of several blocks, all with the same number.
inline void fill_blocks(MutableBytes data, std::size_t block_bytes, BlockStamp stamp) {
  stamp.count = static_cast<std::uint32_t>(data.size() / block_bytes);
  for (stamp.index = 0; stamp.index < stamp.count; ++stamp.index, stamp.offset += block_bytes) {
    fill_block(data.subspan(stamp.index * block_bytes, block_bytes), stamp);
  }
}

}  // namespace kelda::tools
