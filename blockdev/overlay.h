// A device that reads through to another one and keeps what is written in memory: the other one never changes.
//
// Contract: as blockdev.h. For looking at a disk that needs recovery without touching it (`kelda check`). What was written
// lives until the overlay goes; its memory grows with the blocks written and is not bounded here. A flush does nothing, as
// there is nothing that could be lost.
#pragma once

#include <array>
#include <memory>
#include <unordered_map>

#include "blockdev/blockdev.h"
#include "blockdev/counters.h"

namespace kelda::blockdev {

class OverlayDevice final : public BlockDevice {
 public:
  explicit OverlayDevice(std::unique_ptr<BlockDevice> base);

  const DeviceInfo& info() const override { return info_; }
  void submit(std::span<Request* const> requests) override;
  DeviceStats stats() const override { return counters_.total(); }

  std::uint64_t written_bytes();
  bool written(std::uint64_t offset_bytes);  // was the block there ever written?
  BlockDevice& base() { return *base_; }

 private:
  static constexpr std::uint64_t kBlockBytes = 4096;
  using Block = std::array<std::byte, kBlockBytes>;

  bool any_written(std::uint64_t offset_bytes, std::uint64_t length_bytes);
  void run(Request& request);
  Result<> read_range(std::uint64_t offset_bytes, MutableBytes out);
  Result<> write_range(std::uint64_t offset_bytes, Bytes data);
  Result<> zero_range(std::uint64_t offset_bytes, std::uint64_t length_bytes);

  std::unique_ptr<BlockDevice> base_;
  DeviceInfo info_;
  Counters counters_;
  runtime::SpinLatch latch_;  // guards blocks_; blocks themselves are stable
  std::unordered_map<std::uint64_t, std::unique_ptr<Block>> blocks_;
};

}  // namespace kelda::blockdev
