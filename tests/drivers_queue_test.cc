// The split virtqueue against the in-memory device.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "tests/virtio_peer.h"

namespace kelda::tests {
namespace {

struct Case {
  bool event_index, indirect;
};

class Virtqueue : public testing::TestWithParam<Case> {
 protected:
  void make(std::uint16_t size) {
    VirtQueue::Options options{size, GetParam().event_index, GetParam().indirect};
    auto block = memory.allocate(VirtQueue::memory_bytes(options));
    queue = std::make_unique<VirtQueue>(options, block->data, block->address);
    peer = std::make_unique<PeerQueue>(queue->addresses(), size, options.event_index);
  }
  static DmaSegment segment(std::uint64_t n) { return {PhysAddr(0x10000 + n * 0x1000), static_cast<std::uint32_t>(n + 1)}; }
  static void* token(std::uintptr_t n) { return reinterpret_cast<void*>(n + 1); }

  PeerMemory memory;
  std::unique_ptr<VirtQueue> queue;
  std::unique_ptr<PeerQueue> peer;
};

TEST_P(Virtqueue, DeviceSeesTheChainAsItWasSubmitted) {
  make(8);
  std::vector<DmaSegment> reads{segment(1), segment(2)}, writes{segment(3)};
  ASSERT_TRUE(queue->submit(reads, writes, token(7)));
  EXPECT_FALSE(peer->take()) << "nothing is published before the kick";
  EXPECT_TRUE(queue->kick());
  auto chain = peer->take();
  ASSERT_TRUE(chain);
  ASSERT_EQ(chain->reads.size(), 2u);
  ASSERT_EQ(chain->writes.size(), 1u);
  EXPECT_EQ(chain->reads[1].address, segment(2).address);
  EXPECT_EQ(chain->writes[0].size_bytes, segment(3).size_bytes);
  EXPECT_FALSE(queue->poll());
  peer->complete(chain->head, 99);
  auto done = queue->poll();
  ASSERT_TRUE(done);
  EXPECT_EQ(done->token, token(7));
  EXPECT_EQ(done->written_bytes, 99u);
  EXPECT_EQ(queue->free_descriptors(), 8);
  EXPECT_EQ(queue->in_flight(), 0);
}

TEST_P(Virtqueue, SaysFullAndTakesNothingThen) {
  make(4);
  int submitted = 0;
  std::vector<DmaSegment> pair{segment(0), segment(1)};
  while (queue->submit(pair, {}, token(submitted))) ++submitted;
  // Two descriptors a chain, or one each once indirect tables come in.
  EXPECT_EQ(submitted, GetParam().indirect ? 3 : 2);
  EXPECT_FALSE(queue->can_submit(2));
  EXPECT_FALSE(queue->can_submit(0));
  (void)queue->kick();
  auto chain = peer->take();
  peer->complete(chain->head, 0);
  EXPECT_FALSE(queue->can_submit(2)) << "room returns with poll(), not before";
  ASSERT_TRUE(queue->poll());
  EXPECT_TRUE(queue->can_submit(2));
}

TEST_P(Virtqueue, ChainLongerThanTheIndirectTableUsesTheRing) {
  make(64);
  std::vector<DmaSegment> many;
  for (std::size_t i = 0; i < VirtQueue::kIndirectSegments + 5; ++i) many.push_back(segment(i));
  ASSERT_TRUE(queue->submit(many, {}, token(0)));
  ASSERT_TRUE(queue->submit(many, {}, token(1)));
  (void)queue->kick();
  for (int i = 0; i < 2; ++i) {
    auto chain = peer->take();
    ASSERT_TRUE(chain);
    EXPECT_FALSE(chain->indirect);
    EXPECT_EQ(chain->reads.size(), many.size());
  }
  EXPECT_EQ(peer->malformed, 0);
}

// Random traffic over more than two rounds of the 16-bit indices, completions out of order.
TEST_P(Virtqueue, SurvivesIndexWrapAround) {
  make(16);
  std::mt19937 random(1);
  std::vector<std::pair<std::uint16_t, std::uintptr_t>> at_device;
  std::vector<bool> expected(200'000, false);
  std::uintptr_t submitted = 0, finished = 0;
  bool saw_indirect = false;
  while (finished < 150'000) {
    std::size_t reads = random() % 3, writes = random() % 3;
    std::vector<DmaSegment> r, w;
    for (std::size_t i = 0; i < reads; ++i) r.push_back(segment(submitted % 1000 + i));
    for (std::size_t i = 0; i < writes; ++i) w.push_back(segment(i));
    if (submitted < expected.size() && queue->submit(r, w, token(submitted))) expected[submitted++] = true;
    if (random() % 3 == 0) (void)queue->kick();
    while (auto chain = peer->take()) {
      saw_indirect |= chain->indirect;
      at_device.emplace_back(chain->head, 0);
    }
    if (!at_device.empty() && random() % 2 == 0) {
      std::swap(at_device[random() % at_device.size()], at_device.back());
      peer->complete(at_device.back().first, 1);
      at_device.pop_back();
    }
    while (auto done = queue->poll()) {
      std::uintptr_t n = reinterpret_cast<std::uintptr_t>(done->token) - 1;
      ASSERT_LT(n, submitted);
      ASSERT_TRUE(expected[n]) << "completed twice";
      expected[n] = false;
      ++finished;
    }
  }
  EXPECT_EQ(peer->malformed, 0);
  EXPECT_FALSE(queue->broken());
  EXPECT_EQ(saw_indirect, GetParam().indirect);
}

TEST_P(Virtqueue, KicksOnlyADeviceThatAsksForIt) {
  make(16);
  DmaSegment one = segment(0);
  auto submit = [&] { ASSERT_TRUE(queue->submit({&one, 1}, {}, token(0))); };
  EXPECT_FALSE(queue->kick()) << "nothing new";
  submit();
  submit();
  EXPECT_TRUE(queue->kick()) << "a fresh device sleeps";
  (void)peer->take();
  (void)peer->take();
  peer->refuse_notifications();
  submit();
  EXPECT_FALSE(queue->kick());
  EXPECT_FALSE(peer->want_notification()) << "the device must see what came while it was awake";
  (void)peer->take();
  EXPECT_TRUE(peer->want_notification());
  submit();
  EXPECT_TRUE(queue->kick());
}

TEST_P(Virtqueue, InterruptsOnlyWhenArmed) {
  make(16);
  DmaSegment one = segment(0);
  auto round = [&] {
    EXPECT_TRUE(queue->submit({&one, 1}, {}, token(0)));
    (void)queue->kick();
    return peer->complete(peer->take()->head, 0);
  };
  EXPECT_FALSE(round()) << "a fresh queue is polled";
  EXPECT_FALSE(queue->arm_interrupt()) << "a completion is there already";
  ASSERT_TRUE(queue->poll());
  EXPECT_TRUE(queue->arm_interrupt());
  EXPECT_TRUE(round());
  ASSERT_TRUE(queue->poll());
  queue->disarm_interrupt();
  EXPECT_FALSE(round());
  ASSERT_TRUE(queue->poll());
}

TEST_P(Virtqueue, UsedEntryThatNamesNoChainBreaksTheQueue) {
  for (std::uint32_t wrong : {3u, 16u, 0xffff'ffffu}) {
    make(16);
    DmaSegment one = segment(0);
    ASSERT_TRUE(queue->submit({&one, 1}, {}, token(0)));
    (void)queue->kick();
    peer->complete_raw(wrong, 0);
    EXPECT_FALSE(queue->poll());
    EXPECT_TRUE(queue->broken());
    EXPECT_FALSE(queue->submit({&one, 1}, {}, token(1)));
    EXPECT_EQ(queue->abandon_one(), token(0));
    EXPECT_EQ(queue->abandon_one(), nullptr);
  }
}

// Both sides on their own thread: neither may sleep with work for it (Q3, Q4). A lost notification hangs the test.
TEST_P(Virtqueue, NoLostWakeUpBetweenTwoThreads) {
  make(8);
  constexpr int kRounds = 30'000;
  std::atomic<int> notifications{0}, interrupts{0};
  std::thread device([&] {
    int seen = 0;
    for (int done = 0; done < kRounds;) {
      while (auto chain = peer->take()) {
        if (peer->complete(chain->head, 0)) interrupts.fetch_add(1), interrupts.notify_one();
        ++done;
      }
      if (done == kRounds) break;
      if (!peer->want_notification()) continue;
      notifications.wait(seen);
      seen = notifications.load();
      peer->refuse_notifications();
    }
  });
  DmaSegment one = segment(0);
  int seen = 0;
  int submitted = 0;
  for (int finished = 0; finished < kRounds;) {
    for (int burst = submitted % 3; burst >= 0 && submitted < kRounds; --burst) {
      if (!queue->submit({&one, 1}, {}, token(0))) break;
      ++submitted;
    }
    if (queue->kick()) notifications.fetch_add(1), notifications.notify_one();
    int before = finished;
    while (queue->poll()) ++finished;
    if (finished != before || finished == kRounds) continue;
    if (!queue->arm_interrupt()) continue;
    interrupts.wait(seen);
    seen = interrupts.load();
  }
  device.join();
  EXPECT_EQ(peer->malformed, 0);
}

INSTANTIATE_TEST_SUITE_P(Features, Virtqueue, testing::Values(Case{false, false}, Case{true, false}, Case{false, true}, Case{true, true}),
                         [](const auto& test) {
                           return std::string(test.param.event_index ? "EventIndex" : "Flags") +
                                  (test.param.indirect ? "Indirect" : "Direct");
                         });

}  // namespace
}  // namespace kelda::tests
