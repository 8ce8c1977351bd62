// The network and entropy drivers against in-memory devices.
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <numeric>

#include "kernel/virtio_net.h"
#include "kernel/virtio_rng.h"
#include "tests/virtio_peer.h"

namespace kelda::tests {
namespace {

using namespace kelda::kernel;

constexpr std::uint64_t kRingFeatures = feature_bit(28) | feature_bit(29) | feature_bit(32);
constexpr unsigned kMtu = 3, kMac = 5, kStatus = 16;

class Network : public testing::Test {
 protected:
  Network() {
    peer.type = 1;
    peer.queue_count = 2;
    peer.queue_size = 8;
    peer.features = kRingFeatures | feature_bit(kMac) | feature_bit(kStatus);
    for (std::size_t i = 0; i < 6; ++i) peer.set_config<std::uint8_t>(i, static_cast<std::uint8_t>(0x52 + i));
    peer.set_config<std::uint16_t>(6, 1);
    peer.on_notify = [this](std::uint16_t queue) { serve(queue); };
  }
  void start() {
    auto made = VirtioNet::create(peer.transport(), memory, {});
    ASSERT_TRUE(made) << made.error().to_string();
    net = *std::move(made);
  }
  void serve(std::uint16_t queue) {
    while (auto chain = peer.queues[queue]->take()) {
      if (queue == 0) {
        ASSERT_EQ(chain->writes.size(), 1u);
        empty_buffers.push_back(*chain);
      } else {
        std::vector<std::byte> frame(PeerMemory::from_device(chain->reads[0].address.value),
                                     PeerMemory::from_device(chain->reads[0].address.value) + chain->reads[0].size_bytes);
        sent.push_back(frame);
        if (hold_sent) held.push_back(chain->head);
        else peer.queues[1]->complete(chain->head, 0);
      }
    }
    (void)peer.queues[queue]->want_notification();
  }
  // Returns whether an interrupt was due.
  bool deliver(std::size_t frame_bytes, std::byte value, std::uint8_t flags = 0) {
    PeerChain chain = empty_buffers.front();
    empty_buffers.pop_front();
    std::byte* at = PeerMemory::from_device(chain.writes[0].address.value);
    std::memset(at, 0, 12);
    at[0] = std::byte{flags};
    std::memset(at + 12, static_cast<int>(value), frame_bytes);
    return peer.queues[0]->complete(chain.head, static_cast<std::uint32_t>(12 + frame_bytes));
  }
  PeerDevice peer;
  PeerMemory memory;
  std::unique_ptr<VirtioNet> net;
  std::deque<PeerChain> empty_buffers;
  std::vector<std::vector<std::byte>> sent;
  std::vector<std::uint16_t> held;
  bool hold_sent = false;
};

TEST_F(Network, TellsAddressLinkAndMtu) {
  peer.features |= feature_bit(kMtu);
  peer.set_config<std::uint16_t>(10, 1400);
  start();
  EXPECT_EQ(net->mac()[0], 0x52);
  EXPECT_EQ(net->mac()[5], 0x57);
  EXPECT_EQ(net->mtu_bytes(), 1400);
  EXPECT_TRUE(net->link_up());
  peer.set_config<std::uint16_t>(6, 0);
  peer.config_sink.handler(peer.config_sink.argument);
  EXPECT_FALSE(net->arm()) << "the change must be looked at before sleep";
  net->poll_rx([](Bytes, bool) {});
  EXPECT_FALSE(net->link_up());
}

TEST_F(Network, ReceivesFramesAndGivesTheBuffersBack) {
  start();
  for (int round = 0; round < 100; ++round) {
    ASSERT_EQ(empty_buffers.size(), 8u);
    ASSERT_TRUE(net->arm());
    EXPECT_TRUE(deliver(60, std::byte{1})) << "armed";
    EXPECT_FALSE(deliver(1514, std::byte{2})) << "one interrupt is enough";
    std::vector<std::size_t> sizes;
    EXPECT_EQ(net->poll_rx([&](Bytes frame, bool) { sizes.push_back(frame.size()); }), 2u);
    EXPECT_EQ(sizes, (std::vector<std::size_t>{60, 1514}));
  }
  EXPECT_EQ(net->stats().rx_frames, 200u);
}

TEST_F(Network, MalformedFramesAreCountedAndDropped) {
  start();
  deliver(0, std::byte{});
  PeerChain chain = empty_buffers.front();
  empty_buffers.pop_front();
  peer.queues[0]->complete(chain.head, 100'000);
  EXPECT_EQ(net->poll_rx([](Bytes, bool) { FAIL(); }), 2u);
  EXPECT_EQ(net->stats().rx_errors, 2u);
  EXPECT_EQ(empty_buffers.size(), 8u);
}

TEST_F(Network, SendsPiecesAsOneFrameBehindAnEmptyHeader) {
  start();
  std::vector<std::byte> a(14, std::byte{1}), b(1500, std::byte{2});
  Bytes pieces[] = {a, b};
  ASSERT_EQ(net->send(pieces), SendStatus::kQueued);
  EXPECT_TRUE(sent.empty());
  net->kick_tx();
  ASSERT_EQ(sent.size(), 1u);
  ASSERT_EQ(sent[0].size(), 12u + 1514);
  EXPECT_EQ(std::accumulate(sent[0].begin(), sent[0].begin() + 12, 0, [](int n, std::byte x) { return n + int(x); }), 0);
  EXPECT_EQ(sent[0][12 + 13], std::byte{1});
  EXPECT_EQ(sent[0][12 + 14], std::byte{2});
  std::vector<std::byte> large(1600);
  Bytes one[] = {large};
  EXPECT_EQ(net->send(one), SendStatus::kTooLong);
}

TEST_F(Network, ChecksumsAreLeftToADeviceThatOffersIt) {
  peer.features |= feature_bit(0) | feature_bit(1);
  start();
  ASSERT_TRUE(net->fills_checksums());
  ASSERT_TRUE(net->checks_checksums());
  std::vector<std::byte> a(60);
  Bytes pieces[] = {a};
  ASSERT_EQ(net->send(pieces, {34, 16, true}), SendStatus::kQueued);
  ASSERT_EQ(net->send(pieces), SendStatus::kQueued);
  net->kick_tx();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[0][0], std::byte{1});  // needs a checksum
  EXPECT_EQ(sent[0][6], std::byte{34});
  EXPECT_EQ(sent[0][8], std::byte{16});
  EXPECT_EQ(sent[1][0], std::byte{0}) << "a reused or fresh header says nothing";
  std::vector<bool> good;
  for (std::uint8_t flags : {0, 1, 2}) deliver(60, std::byte{}, flags);
  net->poll_rx([&](Bytes, bool is_good) { good.push_back(is_good); });
  EXPECT_EQ(good, (std::vector<bool>{false, true, true}));
}

TEST_F(Network, FullTransmitQueueSaysSoAndWakesWhenRoomReturns) {
  hold_sent = true;
  start();
  std::vector<std::byte> a(60);
  Bytes pieces[] = {a};
  for (int i = 0; i < 8; ++i) ASSERT_EQ(net->send(pieces), SendStatus::kQueued);
  EXPECT_EQ(net->send(pieces), SendStatus::kFull);
  net->kick_tx();
  ASSERT_TRUE(net->arm());
  EXPECT_TRUE(peer.queues[1]->complete(held[0], 0)) << "an interrupt for the transmit queue";
  EXPECT_FALSE(net->arm());
  EXPECT_EQ(net->send(pieces), SendStatus::kQueued);
}

class Entropy : public testing::Test {
 protected:
  Entropy() {
    peer.type = 4;
    peer.features = kRingFeatures;
    peer.on_notify = [this](std::uint16_t) {
      auto chain = peer.queues[0]->take();
      (void)peer.queues[0]->want_notification();
      if (silent) return;
      std::uint32_t give = std::min<std::uint32_t>(chain->writes[0].size_bytes, at_most);
      std::memset(PeerMemory::from_device(chain->writes[0].address.value), 0x5a, give);
      peer.queues[0]->complete(chain->head, give);
    };
  }
  static std::uint64_t ticking() {
    static std::uint64_t now = 0;
    return now += 1000;
  }
  PeerDevice peer;
  PeerMemory memory;
  bool silent = false;
  std::uint32_t at_most = 5;
};

TEST_F(Entropy, FillsFromSmallAnswers) {
  auto rng = VirtioRng::create(peer.transport(), memory);
  ASSERT_TRUE(rng);
  std::vector<std::byte> out(600);
  ASSERT_TRUE((*rng)->fill(out, 1'000'000, &ticking));
  for (std::byte b : out) EXPECT_EQ(b, std::byte{0x5a});
}

TEST_F(Entropy, SilentHostIsATimeoutAndAnEmptyAnswerAnError) {
  silent = true;
  auto rng = VirtioRng::create(peer.transport(), memory);
  std::vector<std::byte> out(16);
  EXPECT_TRUE((*rng)->fill(out, 100, &ticking).failed_with(Code::kTimeout));
  EXPECT_TRUE((*rng)->fill(out, 100, &ticking).failed_with(Code::kTimeout)) << "and still is";
  silent = false;
  at_most = 0;
  auto other = VirtioRng::create(peer.transport(), memory);
  EXPECT_TRUE((*other)->fill(out, 100, &ticking).failed_with(Code::kIo));
}

}  // namespace
}  // namespace kelda::tests
