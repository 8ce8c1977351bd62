// virtio-net (virtio 1.2, section 5.1): one receive and one transmit queue.
//
// Frames are Ethernet frames without checksum trailer. Each lies in one buffer: segmentation offloads are not taken, so
// none is longer than max_frame_bytes(). Checksum offloads are taken where offered: then a received frame that the device
// vouches for may have an incomplete checksum field (it never left the host), and must not be verified again.
//
// Contract: one CPU at a time, the one that `options.cpu` names. poll_rx() and send() never wait.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "common/result.h"
#include "kernel/virtio_device.h"

namespace kelda::kernel {

using MacAddress = std::array<std::uint8_t, 6>;

struct NetOptions {
  unsigned cpu = 0;                    // takes the interrupts
  std::uint16_t queue_size = 256;      // most buffers of each direction
  std::uint16_t mtu_limit_bytes = 9000;
};

struct NetStats {
  std::uint64_t rx_frames = 0, rx_bytes = 0, rx_errors = 0;
  std::uint64_t tx_frames = 0, tx_bytes = 0, tx_full = 0;
};

// A TCP or UDP checksum for the device to finish: over the bytes from `start` to the end of the frame, stored at
// start + offset, where the sum of the pseudo header stands.
struct PartialChecksum {
  std::uint16_t start = 0, offset = 0;
  bool wanted = false;  // only where fills_checksums()
};

enum class SendStatus : std::uint8_t {
  kQueued,   // copied; leaves with the next kick_tx()
  kFull,     // no room now: arm() will ask for an interrupt when there is
  kTooLong,
};

class VirtioNet {
 public:
  static Result<std::unique_ptr<VirtioNet>> create(std::unique_ptr<VirtioTransport> transport, DmaMemory& memory,
                                                   const NetOptions& options);
  ~VirtioNet();

  const MacAddress& mac() const { return mac_; }
  std::uint16_t mtu_bytes() const { return mtu_bytes_; }
  std::size_t max_frame_bytes() const { return std::size_t{mtu_bytes_} + kFrameOverheadBytes; }
  bool link_up() const { return link_up_; }  // as of the last poll_rx()
  bool fills_checksums() const { return fills_checksums_; }
  bool checks_checksums() const { return checks_checksums_; }
  const NetStats& stats() const { return stats_; }
  std::string where() const { return transport_->where(); }
  bool broken() const { return rx_.ring->broken() || tx_.ring->broken(); }

  // Calls on_frame(Bytes, bool checksum_is_good) for each frame that has come in, at most `limit`; the bytes are valid
  // during the call only. Returns how many there were.
  template <class OnFrame>
  std::size_t poll_rx(OnFrame&& on_frame, std::size_t limit = 64) {
    std::size_t count = 0;
    for (; count < limit; ++count) {
      Received received = take_received();
      if (received.buffer == kNoBuffer) break;
      if (!received.frame.empty()) on_frame(received.frame, received.checksum_is_good);
      give_back(received.buffer);
    }
    finish_poll(count);
    return count;
  }

  // Copies the frame's pieces into one buffer. That costs less than translating the pieces: a frame is short.
  SendStatus send(std::span<const Bytes> pieces, PartialChecksum checksum = {});
  void kick_tx();

  // Asks for an interrupt when a frame comes in (and, after kFull, when room to send appears). False: there is
  // something to do already.
  [[nodiscard]] bool arm();
  void disarm();

 private:
  static constexpr std::size_t kFrameOverheadBytes = 18;  // Ethernet header and a VLAN tag
  static constexpr std::uint16_t kNoBuffer = 0xffff;

  struct Direction {
    std::unique_ptr<VirtQueue> ring;
    std::byte* buffers = nullptr;
    PhysAddr address;
  };
  struct Received {
    std::uint16_t buffer = kNoBuffer;
    Bytes frame;  // empty: malformed
    bool checksum_is_good = false;
  };

  explicit VirtioNet(std::unique_ptr<VirtioTransport> transport) : transport_(std::move(transport)) {}
  Result<> start(DmaMemory& memory, const NetOptions& options);
  Result<> make_direction(Direction& direction, std::uint16_t index, DmaMemory& memory, const NetOptions& options,
                          std::uint64_t features);
  std::byte* buffer(const Direction& direction, std::uint16_t i) const { return direction.buffers + i * buffer_bytes_; }
  std::uint16_t buffer_index(const Direction& direction, const void* token) const;
  Received take_received();
  void give_back(std::uint16_t buffer);
  void finish_poll(std::size_t count);
  void reclaim_sent();
  void read_link();
  static void on_config_interrupt(void* self);
  static void on_queue_interrupt(void* self);

  std::unique_ptr<VirtioTransport> transport_;
  Direction rx_, tx_;
  std::vector<std::uint16_t> tx_free_;
  std::size_t buffer_bytes_ = 0;
  MacAddress mac_{};
  std::uint16_t mtu_bytes_ = 1500;
  bool has_status_ = false;
  bool fills_checksums_ = false;
  bool checks_checksums_ = false;
  bool link_up_ = true;
  bool tx_wanted_ = false;  // send() found no room
  std::atomic<bool> config_pending_{false};
  NetStats stats_;
};

}  // namespace kelda::kernel
