// The disk driver against an in-memory virtio disk.
#include <gtest/gtest.h>
#include <linux/virtio_blk.h>

#include <deque>
#include <numeric>

#include "kernel/virtio_blk.h"
#include "tests/virtio_peer.h"

namespace kelda::tests {
namespace {

using namespace kelda::kernel;

constexpr std::uint64_t kRingFeatures = feature_bit(28) | feature_bit(29) | feature_bit(32);
constexpr std::uint64_t kAllDisk = feature_bit(VIRTIO_BLK_F_SEG_MAX) | feature_bit(VIRTIO_BLK_F_FLUSH) |
                                   feature_bit(VIRTIO_BLK_F_BLK_SIZE) | feature_bit(VIRTIO_BLK_F_MQ) |
                                   feature_bit(VIRTIO_BLK_F_DISCARD) | feature_bit(VIRTIO_BLK_F_WRITE_ZEROES);

// What the device was asked, part by part.
struct Seen {
  std::uint32_t type;
  std::uint64_t sector, sector_count;
  std::size_t segment_count;
  std::uint16_t queue;
};

class PeerDisk {
 public:
  PeerDisk() {
    device.type = 2;
    device.features = kRingFeatures | kAllDisk;
    device.queue_count = 2;
    set_capacity(content.size());
    device.set_config<std::uint32_t>(offsetof(virtio_blk_config, seg_max), 6);
    device.set_config<std::uint32_t>(offsetof(virtio_blk_config, blk_size), 512);
    device.set_config<std::uint16_t>(offsetof(virtio_blk_config, num_queues), 2);
    device.set_config<std::uint32_t>(offsetof(virtio_blk_config, max_discard_sectors), 16);
    device.set_config<std::uint32_t>(offsetof(virtio_blk_config, max_write_zeroes_sectors), 0);
    device.on_notify = [this](std::uint16_t queue) { serve(queue); };
  }
  void set_capacity(std::uint64_t size_bytes) {
    device.set_config<std::uint64_t>(offsetof(virtio_blk_config, capacity), size_bytes / 512);
  }
  void serve(std::uint16_t queue) {
    while (auto chain = device.queues[queue]->take()) {
      if (hold) held.emplace_back(queue, *chain);
      else finish(queue, *chain);
    }
    EXPECT_TRUE(device.queues[queue]->want_notification());
  }
  void release_one() {
    auto [queue, chain] = held.front();
    held.pop_front();
    finish(queue, chain);
  }

  PeerDevice device;
  std::vector<std::byte> content = std::vector<std::byte>(1 << 20);
  std::vector<Seen> seen;
  std::deque<std::pair<std::uint16_t, PeerChain>> held;
  bool hold = false;
  std::function<std::uint8_t(const Seen&)> verdict = [](const Seen&) { return std::uint8_t{0}; };

 private:
  void finish(std::uint16_t queue, const PeerChain& chain) {
    ASSERT_FALSE(chain.reads.empty());
    ASSERT_EQ(chain.reads[0].size_bytes, 16u);
    ASSERT_EQ(chain.writes.back().size_bytes, 1u);
    virtio_blk_outhdr header;
    std::memcpy(&header, PeerMemory::from_device(chain.reads[0].address.value), sizeof header);
    Seen s{header.type, header.sector, 0, 0, queue};
    bool in = header.type == VIRTIO_BLK_T_IN;
    std::vector<DmaSegment> data(in ? chain.writes.begin() : chain.reads.begin() + 1, in ? chain.writes.end() - 1 : chain.reads.end());
    s.segment_count = data.size();
    for (auto& d : data) s.sector_count += d.size_bytes / 512;
    if (header.type == VIRTIO_BLK_T_DISCARD || header.type == VIRTIO_BLK_T_WRITE_ZEROES) {
      virtio_blk_discard_write_zeroes range;
      std::memcpy(&range, PeerMemory::from_device(data[0].address.value), sizeof range);
      s.sector = range.sector;
      s.sector_count = range.num_sectors;
      std::memset(content.data() + s.sector * 512, 0, s.sector_count * 512);
    }
    std::uint8_t status = verdict(s);
    if (header.type == VIRTIO_BLK_T_GET_ID) {
      std::memcpy(PeerMemory::from_device(chain.writes[0].address.value), "serial-no-of-20-char", 20);
    } else {
      if (status == 0 && header.type <= 1) move(in, header.sector, data);
      seen.push_back(s);
    }
    *PeerMemory::from_device(chain.writes.back().address.value) = std::byte{status};
    device.queues[queue]->complete(chain.head, 1);
  }
  void move(bool in, std::uint64_t sector, const std::vector<DmaSegment>& data) {
    std::byte* disk = content.data() + sector * 512;
    for (auto& d : data) {
      std::byte* host = PeerMemory::from_device(d.address.value);
      std::memcpy(in ? host : disk, in ? disk : host, d.size_bytes);
      disk += d.size_bytes;
    }
  }
};

struct PageFree {
  void operator()(std::byte* p) const { std::free(p); }
};
using Pages = std::unique_ptr<std::byte, PageFree>;
Pages pages(std::size_t count) { return Pages(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, count * kPageBytes))); }

std::vector<unsigned> woken;

class Disk : public testing::Test {
 protected:
  void start(unsigned cpus = 2) {
    woken.clear();
    auto made = VirtioBlk::create(peer.device.transport(), memory, cpus, [](std::uint32_t cpu) { woken.push_back(cpu); });
    ASSERT_TRUE(made) << made.error().to_string();
    disk = *std::move(made);
  }
  struct Io : BlkRequest {
    int completed = 0;
    std::vector<BlkSegment> list;
  };
  static void fill(Io& io, BlkOp op, std::uint64_t offset, std::vector<BlkSegment> segments, std::uint64_t length = 0) {
    io.op = op;
    io.offset_bytes = offset;
    io.length_bytes = length;
    io.list = std::move(segments);
    io.segments = io.list;
    io.complete = [](BlkRequest& r) { ++static_cast<Io&>(r).completed; };
  }
  BlkStatus run(BlkOp op, std::uint64_t offset, std::vector<BlkSegment> segments, std::uint64_t length = 0, unsigned cpu = 0) {
    Io io;
    fill(io, op, offset, std::move(segments), length);
    disk->submit(cpu, io);
    disk->kick(cpu);
    EXPECT_EQ(io.completed, 0) << "never from submit or kick";
    for (int i = 0; i < 100 && io.completed == 0; ++i) disk->poll(cpu);
    EXPECT_EQ(io.completed, 1);
    return io.status;
  }
  PeerDisk peer;
  PeerMemory memory;
  std::unique_ptr<VirtioBlk> disk;
};

TEST_F(Disk, TellsWhatTheDeviceOffers) {
  peer.device.features |= feature_bit(VIRTIO_BLK_F_RO);
  start();
  EXPECT_EQ(disk->capacity_bytes(), 1u << 20);
  EXPECT_EQ(disk->limits().serial, "serial-no-of-20-char");
  EXPECT_TRUE(disk->limits().has_flush);
  EXPECT_TRUE(disk->limits().read_only);
  EXPECT_EQ(disk->limits().queue_count, 2);
  EXPECT_EQ(disk->limits().segment_count, 6u);
  EXPECT_EQ(disk->limits().discard_bytes, 16u * 512);
  EXPECT_GT(disk->limits().write_zeroes_bytes, 1u << 30) << "0 means no limit";
  auto page = pages(1);
  EXPECT_EQ(run(BlkOp::kWrite, 0, {{page.get(), 4096}}), BlkStatus::kBadRequest);
  EXPECT_EQ(run(BlkOp::kRead, 0, {{page.get(), 4096}}), BlkStatus::kOk);
}

TEST_F(Disk, ReadsBackWhatWasWrittenFromScatteredMemory) {
  memory.scattered = true;
  start();
  auto out = pages(9), in = pages(9);
  for (std::size_t i = 0; i < 9 * kPageBytes; ++i) out.get()[i] = static_cast<std::byte>(i * 7 + i / 4096);
  ASSERT_EQ(run(BlkOp::kWrite, 8192, {{out.get(), 9 * 4096}}), BlkStatus::kOk);
  // Nine scattered pages at six segments a part.
  ASSERT_EQ(peer.seen.size(), 2u);
  EXPECT_EQ(peer.seen[0].segment_count, 6u);
  EXPECT_EQ(peer.seen[1].sector, peer.seen[0].sector + peer.seen[0].sector_count);
  ASSERT_EQ(run(BlkOp::kRead, 8192, {{in.get(), 512}, {in.get() + 512, 4096 * 9 - 512}}, 0, 1), BlkStatus::kOk);
  EXPECT_EQ(std::memcmp(in.get(), out.get(), 9 * kPageBytes), 0);
  EXPECT_EQ(peer.seen.back().queue, 1) << "each CPU has its own queue";
}

TEST_F(Disk, MergesNeighboursInMemory) {
  start();
  auto buffer = pages(8);
  std::vector<BlkSegment> list;
  for (int i = 0; i < 8; ++i) list.push_back({buffer.get() + i * 4096, 4096});
  ASSERT_EQ(run(BlkOp::kWrite, 0, list), BlkStatus::kOk);
  ASSERT_EQ(peer.seen.size(), 1u);
  EXPECT_EQ(peer.seen[0].segment_count, 1u);
}

TEST_F(Disk, RespectsSizeMax) {
  peer.device.features |= feature_bit(VIRTIO_BLK_F_SIZE_MAX);
  peer.device.set_config<std::uint32_t>(offsetof(virtio_blk_config, size_max), 1100);  // two sectors and a bit
  start();
  auto buffer = pages(2);
  ASSERT_EQ(run(BlkOp::kWrite, 0, {{buffer.get(), 8192}}), BlkStatus::kOk);
  ASSERT_EQ(peer.seen.size(), 2u);
  EXPECT_EQ(peer.seen[0].sector_count, 12u);
}

TEST_F(Disk, WithoutSegMaxSendsOneSegmentAtATime) {
  peer.device.features &= ~feature_bit(VIRTIO_BLK_F_SEG_MAX);
  memory.scattered = true;
  start();
  auto buffer = pages(3);
  ASSERT_EQ(run(BlkOp::kRead, 0, {{buffer.get(), 3 * 4096}}), BlkStatus::kOk);
  EXPECT_EQ(peer.seen.size(), 3u);
}

TEST_F(Disk, FlushDiscardAndWriteZeroesReachTheDevice) {
  start();
  EXPECT_EQ(run(BlkOp::kFlush, 0, {}), BlkStatus::kOk);
  EXPECT_EQ(peer.seen.back().type, std::uint32_t{VIRTIO_BLK_T_FLUSH});
  EXPECT_EQ(run(BlkOp::kDiscard, 4096, {}, 40 * 512), BlkStatus::kOk);
  EXPECT_EQ(peer.seen.size(), 4u) << "16 sectors at a time";
  EXPECT_EQ(peer.seen.back().sector_count, 8u);
  peer.content[0] = std::byte{1};
  EXPECT_EQ(run(BlkOp::kWriteZeroes, 0, {}, 1 << 20), BlkStatus::kOk);
  EXPECT_EQ(peer.content[0], std::byte{0});
}

TEST_F(Disk, WhatIsNotOfferedIsUnsupportedAndNeverSent) {
  peer.device.features = kRingFeatures;
  start();
  EXPECT_FALSE(disk->limits().has_flush);
  EXPECT_EQ(run(BlkOp::kFlush, 0, {}), BlkStatus::kUnsupported);
  EXPECT_EQ(run(BlkOp::kDiscard, 0, {}, 512), BlkStatus::kUnsupported);
  EXPECT_EQ(run(BlkOp::kWriteZeroes, 0, {}, 512), BlkStatus::kUnsupported);
  EXPECT_TRUE(peer.seen.empty());
}

TEST_F(Disk, ReportsTheDevicesVerdictPerRequest) {
  start();
  auto buffer = pages(1);
  peer.verdict = [](const Seen& s) { return static_cast<std::uint8_t>(s.type == VIRTIO_BLK_T_OUT && s.sector == 8); };
  EXPECT_EQ(run(BlkOp::kWrite, 0, {{buffer.get(), 4096}}), BlkStatus::kOk);
  EXPECT_EQ(run(BlkOp::kWrite, 4096, {{buffer.get(), 4096}}), BlkStatus::kIoError);
  peer.verdict = [](const Seen&) { return std::uint8_t{2}; };
  EXPECT_EQ(run(BlkOp::kFlush, 0, {}), BlkStatus::kUnsupported);
  peer.verdict = [](const Seen&) { return std::uint8_t{77}; };
  EXPECT_EQ(run(BlkOp::kFlush, 0, {}), BlkStatus::kIoError) << "an unknown verdict is a failure";
}

TEST_F(Disk, OneFailedPartFailsTheRequestOnce) {
  memory.scattered = true;
  start();
  auto buffer = pages(20);
  peer.verdict = [n = 0](const Seen&) mutable { return static_cast<std::uint8_t>(n++ == 1); };
  EXPECT_EQ(run(BlkOp::kRead, 0, {{buffer.get(), 20 * 4096}}), BlkStatus::kIoError);
  EXPECT_EQ(peer.seen.size(), 4u);
}

TEST_F(Disk, RefusesBadRequestsWithoutTouchingTheDevice) {
  start();
  auto buffer = pages(2);
  std::byte* p = buffer.get();
  EXPECT_EQ(run(BlkOp::kRead, 0, {{p + 1, 512}}), BlkStatus::kBadRequest);
  EXPECT_EQ(run(BlkOp::kRead, 0, {{p, 100}}), BlkStatus::kBadRequest);
  EXPECT_EQ(run(BlkOp::kRead, 0, {}), BlkStatus::kBadRequest);
  EXPECT_EQ(run(BlkOp::kRead, 256, {{p, 512}}), BlkStatus::kBadRequest);
  EXPECT_EQ(run(BlkOp::kRead, (1 << 20) - 512, {{p, 1024}}), BlkStatus::kBadRequest);
  EXPECT_EQ(run(BlkOp::kRead, ~std::uint64_t{511}, {{p, 1024}}), BlkStatus::kBadRequest);
  EXPECT_EQ(run(BlkOp::kDiscard, 0, {}, 0), BlkStatus::kBadRequest);
  memory.nobodys_page = p + 4096;
  EXPECT_EQ(run(BlkOp::kRead, 0, {{p, 8192}}), BlkStatus::kBadRequest);
  EXPECT_TRUE(peer.seen.empty());
}

TEST_F(Disk, MoreRequestsThanTheRingHoldsWaitInOrder) {
  peer.device.queue_size = 8;
  peer.hold = true;
  memory.scattered = true;
  peer.hold = false;
  start();
  peer.hold = true;
  auto buffer = pages(16);
  std::vector<Io> ios(50);
  for (std::size_t i = 0; i < ios.size(); ++i) {
    fill(ios[i], BlkOp::kWrite, i * 4096 * 4, {{buffer.get(), 4 * 4096}});
    disk->submit(0, ios[i]);
  }
  disk->kick(0);
  EXPECT_EQ(disk->in_flight(0), 50u);
  int finished = 0;
  while (finished < 50) {
    ASSERT_FALSE(peer.held.empty());
    peer.release_one();
    finished += static_cast<int>(disk->poll(0));
  }
  EXPECT_EQ(disk->in_flight(0), 0u);
  for (std::size_t i = 1; i < peer.seen.size(); ++i) EXPECT_GT(peer.seen[i].sector, peer.seen[i - 1].sector);
  for (Io& io : ios) EXPECT_EQ(io.completed, 1);
}

TEST_F(Disk, LargeRequestMakesItsWayThroughAFullRing) {
  peer.device.set_config<std::uint32_t>(offsetof(virtio_blk_config, seg_max), 60);
  peer.device.queue_size = 64;
  memory.scattered = true;
  start();
  peer.hold = true;
  auto buffer = pages(40);
  std::vector<Io> small(30);
  for (std::size_t i = 0; i < small.size(); ++i) {
    fill(small[i], BlkOp::kRead, i * 4096, {{buffer.get(), 4096}});
    disk->submit(0, small[i]);
  }
  Io large;
  fill(large, BlkOp::kRead, 0, {{buffer.get(), 40 * 4096}});
  disk->submit(0, large);
  disk->kick(0);
  EXPECT_EQ(peer.held.size(), 33u) << "40 segments as three parts, all at the device";
  while (!peer.held.empty()) peer.release_one();
  EXPECT_EQ(disk->poll(0), 31u);
  EXPECT_EQ(large.status, BlkStatus::kOk);
}

TEST_F(Disk, SharedQueueServesMoreCpusThanQueues) {
  peer.device.features &= ~feature_bit(VIRTIO_BLK_F_MQ);
  start(4);
  EXPECT_EQ(disk->limits().queue_count, 1);
  auto buffer = pages(1);
  Io io;
  fill(io, BlkOp::kRead, 0, {{buffer.get(), 4096}});
  disk->submit(3, io);
  disk->kick(3);
  EXPECT_EQ(disk->poll(1), 1u) << "any CPU of the queue may reap it";
  EXPECT_EQ(io.completed, 1);
  EXPECT_TRUE(disk->arm(3));
  EXPECT_TRUE(disk->arm(1));
  peer.device.sinks[0].handler(peer.device.sinks[0].argument);
  EXPECT_EQ(woken, (std::vector<unsigned>{1, 3})) << "all that sleep on the queue";
}

TEST_F(Disk, NoticesThatTheDiskGrew) {
  start();
  peer.content.resize(2 << 20);
  peer.set_capacity(2 << 20);
  EXPECT_TRUE(disk->arm(0));
  peer.device.config_sink.handler(peer.device.config_sink.argument);
  EXPECT_FALSE(disk->arm(0)) << "there is something to look at";
  disk->poll(0);
  EXPECT_EQ(disk->capacity_bytes(), 2u << 20);
  EXPECT_EQ(disk->config_changes(), 1u);
  auto buffer = pages(1);
  EXPECT_EQ(run(BlkOp::kWrite, (2 << 20) - 4096, {{buffer.get(), 4096}}), BlkStatus::kOk);
}

TEST_F(Disk, ProtocolViolationStopsTheDeviceAndFailsEverything) {
  start();
  peer.hold = true;
  auto buffer = pages(1);
  std::vector<Io> ios(3);
  for (unsigned i = 0; i < 3; ++i) {
    fill(ios[i], BlkOp::kRead, 0, {{buffer.get(), 4096}});
    disk->submit(i == 2, ios[i]);
  }
  disk->kick(0);
  disk->kick(1);
  peer.device.queues[0]->complete_raw(12345, 0);
  EXPECT_EQ(disk->poll(0), 2u);
  EXPECT_TRUE(disk->lost());
  EXPECT_EQ(woken, (std::vector<unsigned>{0, 1})) << "the other CPU must come and fetch its own";
  EXPECT_FALSE(disk->arm(1));
  EXPECT_EQ(disk->poll(1), 1u);
  for (Io& io : ios) EXPECT_EQ(io.status, BlkStatus::kDeviceLost);
  EXPECT_EQ(run(BlkOp::kFlush, 0, {}), BlkStatus::kDeviceLost);
}

TEST_F(Disk, DeviceThatAsksForAResetIsLost) {
  start();
  peer.device.status |= 0x40;
  peer.device.config_sink.handler(peer.device.config_sink.argument);
  disk->poll(0);
  EXPECT_TRUE(disk->lost());
}

TEST_F(Disk, StartFailsWithAReason) {
  auto create = [&] { return VirtioBlk::create(peer.device.transport(), memory, 1, [](std::uint32_t) {}); };
  peer.device.features &= ~feature_bit(32);
  EXPECT_TRUE(create().failed_with(Code::kUnsupported)) << "legacy";
  peer.device.features |= feature_bit(32);
  peer.device.refuse_features = true;
  EXPECT_TRUE(create().failed_with(Code::kUnsupported));
  peer.device.refuse_features = false;
  peer.device.queue_count = 0;
  EXPECT_TRUE(create().failed_with(Code::kUnsupported));
}

TEST_F(Disk, ArmedQueueWakesOnTheNextCompletion) {
  start();
  peer.hold = true;
  auto buffer = pages(1);
  Io io;
  fill(io, BlkOp::kRead, 0, {{buffer.get(), 4096}});
  disk->submit(0, io);
  disk->kick(0);
  EXPECT_TRUE(disk->arm(0));
  peer.release_one();
  EXPECT_FALSE(disk->arm(0));
  EXPECT_EQ(disk->poll(0), 1u);
}

}  // namespace
}  // namespace kelda::tests
