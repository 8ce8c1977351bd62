// The drivers on a real hypervisor's devices. Runs in the VM that tests/drivers_vm.py starts; skipped elsewhere.
//
// Disks there: the first is plain (64 MiB, serial "first"), the second fails by plan (writes to its sector 2048, and the
// first flush), the third is read-only.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>

#include "kernel/cpu.h"
#include "kernel/kernel.h"
#include "kernel/pci.h"
#include "kernel/random.h"
#include "kernel/time.h"
#include "kernel/virtio_devices.h"
#include "kernel/virtio_pci.h"

namespace kelda::tests {
namespace {

using namespace kelda::kernel;

constexpr std::uint64_t kSecondNs = 1'000'000'000;

struct Io : BlkRequest {
  std::atomic<bool> completed{false};
  unsigned cpu = 0;
  BlkSegment one;
};

void start(VirtioBlk& disk, Io& io, BlkOp op, std::uint64_t offset, std::byte* data, std::uint64_t bytes) {
  io.op = op;
  io.offset_bytes = offset;
  io.length_bytes = bytes;
  io.one = {data, bytes};
  io.segments = {&io.one, data != nullptr ? 1u : 0u};
  io.completed.store(false);
  io.cpu = this_cpu_index();
  io.complete = [](BlkRequest& r) {
    unsigned owner = static_cast<Io&>(r).cpu;
    static_cast<Io&>(r).completed.store(true);
    // Another CPU may have reaped it from a shared queue, after the owner looked and before it slept.
    wake_cpu(owner);
  };
  disk.submit(io.cpu, io);
}

// Polls, or sleeps as a core would: interrupts must end it. Panics when the request does not come back, since it would
// outlive its buffer.
void finish(VirtioBlk& disk, Io& io, bool sleep) {
  std::uint64_t deadline = monotonic_ns() + 10 * kSecondNs;
  unsigned cpu = this_cpu_index();
  while (!io.completed.load()) {
    if (disk.poll(cpu) > 0) continue;
    bool late = monotonic_ns() > deadline;
    if (late) panic("a request did not come back within 10 s");
    if (!sleep || !disk.arm(cpu)) continue;
    halt_until_interrupt_or(deadline);
    if (monotonic_ns() > deadline && disk.poll(cpu) > 0) panic("a completion did not end the sleep");
  }
}

BlkStatus run(VirtioBlk& disk, BlkOp op, std::uint64_t offset, std::byte* data, std::uint64_t bytes, bool sleep = false) {
  Io io;
  start(disk, io, op, offset, data, bytes);
  disk.kick(this_cpu_index());
  finish(disk, io, sleep);
  return io.status;
}

std::vector<std::byte> pattern(std::size_t bytes, unsigned seed) {
  std::vector<std::byte> out(bytes);
  std::mt19937 random(seed);
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  return out;
}

struct Aligned {
  explicit Aligned(std::size_t bytes) : data(static_cast<std::byte*>(std::aligned_alloc(4096, round_up(bytes, 4096)))) {}
  ~Aligned() { std::free(data); }
  std::byte* data;
};

class Machine : public testing::Test {
 protected:
  void SetUp() override {
    if (!running_bare()) GTEST_SKIP() << "not a VM";
    std::string problems;
    for (const std::string& problem : virtio_devices().problems) problems += "; " + problem;
    if (virtio_devices().disks.size() < 3) {
      GTEST_SKIP() << "not the disks of drivers_vm.py: " << virtio_devices().disks.size() << problems;
    }
  }
  VirtioBlk& disk(std::size_t i) { return *virtio_devices().disks.at(i); }
};

TEST_F(Machine, FindsItsDevices) {
  for (const std::string& problem : virtio_devices().problems) ADD_FAILURE() << problem;
  ASSERT_EQ(virtio_devices().disks.size(), 3u);
  EXPECT_EQ(disk(0).limits().serial, "first");
  EXPECT_EQ(disk(0).capacity_bytes(), 64_MiB);
  EXPECT_TRUE(disk(0).limits().has_flush);
  EXPECT_GT(disk(0).limits().discard_bytes, 0u);
  EXPECT_GT(disk(0).limits().write_zeroes_bytes, 0u);
  EXPECT_EQ(disk(0).limits().queue_count, std::min(cpu_count(), 2u));
  EXPECT_EQ(disk(1).limits().queue_count, 1);
  EXPECT_EQ(disk(2).limits().block_bytes, 4096u);
  EXPECT_FALSE(disk(0).limits().read_only);
  EXPECT_TRUE(disk(2).limits().read_only);
  EXPECT_EQ(virtio_devices().networks.size(), 1u);
  EXPECT_NE(virtio_devices().entropy, nullptr);
  std::printf("disk 0: %s, %u segments, interrupts so far %lu\n", disk(0).where().c_str(), disk(0).limits().segment_count,
              disk(0).interrupts());
}

TEST_F(Machine, ReadsBackWhatItWrote) {
  for (bool sleep : {false, true}) {
    for (std::size_t bytes : {512ul, 4096ul, 4096ul * 33, 1024ul * 1024, 3ul * 1024 * 1024 + 512}) {
      std::vector<std::byte> expected = pattern(bytes, static_cast<unsigned>(bytes + sleep));
      Aligned out(bytes), in(bytes);  // fresh memory has no frames yet: the driver must get them
      std::memcpy(out.data, expected.data(), bytes);
      std::uint64_t offset = (bytes * 3 + 1_MiB) / 512 * 512;
      ASSERT_EQ(run(disk(0), BlkOp::kWrite, offset, out.data, bytes, sleep), BlkStatus::kOk);
      ASSERT_EQ(run(disk(0), BlkOp::kRead, offset, in.data, bytes, sleep), BlkStatus::kOk);
      EXPECT_EQ(std::memcmp(in.data, expected.data(), bytes), 0) << bytes;
    }
  }
}

TEST_F(Machine, SleepEndsByTheQueuesOwnInterrupt) {
  std::uint64_t before = disk(0).interrupts();
  Aligned page(4096);
  // Now and then the disk is faster than the way to sleep; not always.
  for (int i = 0; i < 5000 && disk(0).interrupts() < before + 10; ++i) {
    ASSERT_EQ(run(disk(0), BlkOp::kRead, 0, page.data, 4096, true), BlkStatus::kOk);
  }
  EXPECT_GE(disk(0).interrupts(), before + 10);
  before = disk(0).interrupts();
  for (int i = 0; i < 50; ++i) ASSERT_EQ(run(disk(0), BlkOp::kRead, 0, page.data, 4096, false), BlkStatus::kOk);
  EXPECT_LE(disk(0).interrupts(), before + 1) << "none while it is polled";
}

TEST_F(Machine, FlushDiscardAndWriteZeroes) {
  Aligned out(64_KiB), in(64_KiB);
  std::memset(out.data, 0xab, 64_KiB);
  ASSERT_EQ(run(disk(0), BlkOp::kWrite, 8_MiB, out.data, 64_KiB), BlkStatus::kOk);
  EXPECT_EQ(run(disk(0), BlkOp::kFlush, 0, nullptr, 0, true), BlkStatus::kOk);
  EXPECT_EQ(run(disk(0), BlkOp::kWriteZeroes, 8_MiB, nullptr, 4096), BlkStatus::kOk);
  EXPECT_EQ(run(disk(0), BlkOp::kDiscard, 8_MiB + 32_KiB, nullptr, 32_KiB), BlkStatus::kOk);
  ASSERT_EQ(run(disk(0), BlkOp::kRead, 8_MiB, in.data, 64_KiB), BlkStatus::kOk);
  std::memset(out.data, 0, 4096);
  EXPECT_EQ(std::memcmp(in.data, out.data, 32_KiB), 0);
  std::memset(out.data, 0, 64_KiB);
  EXPECT_EQ(std::memcmp(in.data + 32_KiB, out.data, 32_KiB), 0) << "this host's discard makes holes";
}

TEST_F(Machine, ReportsTheDisksErrorsAndGoesOn) {
  Aligned page(4096);
  std::memset(page.data, 1, 4096);
  EXPECT_EQ(run(disk(1), BlkOp::kWrite, 0, page.data, 4096), BlkStatus::kOk);
  EXPECT_EQ(run(disk(1), BlkOp::kWrite, 2048 * 512, page.data, 4096), BlkStatus::kIoError);
  EXPECT_EQ(run(disk(1), BlkOp::kWrite, 4096, page.data, 4096), BlkStatus::kOk);
  // The plan fails the first flush only.
  EXPECT_EQ(run(disk(1), BlkOp::kFlush, 0, nullptr, 0), BlkStatus::kIoError);
  EXPECT_EQ(run(disk(1), BlkOp::kFlush, 0, nullptr, 0), BlkStatus::kOk);
  EXPECT_EQ(run(disk(2), BlkOp::kWrite, 0, page.data, 4096), BlkStatus::kBadRequest) << "read-only";
  EXPECT_EQ(run(disk(2), BlkOp::kRead, 0, page.data, 4096), BlkStatus::kOk);
  EXPECT_EQ(run(disk(2), BlkOp::kRead, 512, page.data, 4096), BlkStatus::kBadRequest) << "blocks are 4 KiB there";
}

// Every CPU writes and verifies its own stripe of the same disk at depth 16.
void hammer(VirtioBlk& target, unsigned stripe, bool sleep, std::atomic<int>& wrong) {
  constexpr std::size_t kDepth = 16;
  Aligned memory(kDepth * 8192);
  std::vector<Io> ios(kDepth);
  unsigned cpu = this_cpu_index();
  for (unsigned round = 0; round < 30; ++round) {
    for (BlkOp op : {BlkOp::kWrite, BlkOp::kRead}) {
      for (std::size_t i = 0; i < kDepth; ++i) {
        std::byte* at = memory.data + i * 8192;
        std::memset(at, op == BlkOp::kWrite ? static_cast<int>(round * 16 + i + stripe) : 0, 8192);
        start(target, ios[i], op, 16_MiB + stripe * 4_MiB + ((i * 7 + round) % 64) * 8192, at, 8192);
      }
      target.kick(cpu);
      for (Io& io : ios) {
        finish(target, io, sleep);
        if (io.status != BlkStatus::kOk) ++wrong;
      }
    }
    for (std::size_t i = 0; i < kDepth; ++i) {
      for (std::size_t b = 0; b < 8192; b += 512) {
        if (memory.data[i * 8192 + b] != static_cast<std::byte>(round * 16 + i + stripe)) ++wrong;
      }
    }
  }
}

TEST_F(Machine, AllCpusAtOnceOnTheirQueuesAndOnASharedOne) {
  for (std::size_t which : {0, 1}) {
    for (bool sleep : {false, true}) {
      std::atomic<int> wrong{0};
      std::vector<std::thread> others;
      for (unsigned i = 1; i < cpu_count(); ++i) others.emplace_back([&, i] { hammer(disk(which), i, sleep, wrong); });
      hammer(disk(which), 0, sleep, wrong);
      for (auto& t : others) t.join();
      EXPECT_EQ(wrong.load(), 0) << "disk " << which << (sleep ? " sleeping" : " polling");
    }
  }
}

TEST_F(Machine, DiskGrowsWhileInUse) {
  std::printf("resize the first disk now\n");
  std::fflush(stdout);
  std::uint64_t deadline = monotonic_ns() + 20 * kSecondNs;
  while (disk(0).capacity_bytes() == 64_MiB && monotonic_ns() < deadline) {
    if (disk(0).arm(0)) halt_until_interrupt_or(monotonic_ns() + kSecondNs);
    disk(0).poll(0);
  }
  ASSERT_EQ(disk(0).capacity_bytes(), 80_MiB);
  Aligned page(4096);
  EXPECT_EQ(run(disk(0), BlkOp::kWrite, 80_MiB - 4096, page.data, 4096), BlkStatus::kOk);
}

// Figures for the log; what is asserted is only that the disk answers.
void measure(VirtioBlk& disk, const char* what, BlkOp op, std::size_t depth, bool flush, bool sleep) {
  constexpr std::uint64_t kDurationNs = kSecondNs / 5;
  Aligned memory(depth * 4096);
  std::memset(memory.data, 3, depth * 4096);
  std::vector<Io> ios(depth);
  std::mt19937 random(7);
  unsigned cpu = this_cpu_index();
  auto begin = [&](std::size_t i) { start(disk, ios[i], op, random() % 8192 * 4096, memory.data + i * 4096, 4096); };
  for (std::size_t i = 0; i < depth; ++i) begin(i);
  disk.kick(cpu);
  std::uint64_t started = monotonic_ns(), count = 0, interrupts = disk.interrupts();
  std::uint64_t halted = cpu_halted_ns(cpu);
  while (monotonic_ns() - started < kDurationNs) {
    if (disk.poll(cpu) == 0 && sleep && disk.arm(cpu)) halt_until_interrupt_or(kNoDeadline);
    for (std::size_t i = 0; i < depth; ++i) {
      if (!ios[i].completed.load(std::memory_order_relaxed)) continue;
      ASSERT_EQ(ios[i].status, BlkStatus::kOk);
      ++count;
      if (flush) {
        ASSERT_EQ(run(disk, BlkOp::kFlush, 0, nullptr, 0, sleep), BlkStatus::kOk);
      }
      begin(i);
    }
    disk.kick(cpu);
  }
  std::uint64_t elapsed = monotonic_ns() - started;
  for (Io& io : ios) finish(disk, io, sleep);
  std::printf("%-28s depth %2zu %-8s %8.0f /s %7.1f us each, %5.2f interrupts each, %2.0f%% asleep\n", what, depth,
              sleep ? "sleeping" : "polling", double(count) * 1e9 / double(elapsed), double(elapsed) / 1e3 / double(count),
              double(disk.interrupts() - interrupts) / double(count),
              100.0 * double(cpu_halted_ns(cpu) - halted) / double(elapsed));
}

TEST_F(Machine, Speed) {
  for (bool sleep : {false, true}) {
    measure(disk(0), "4 KiB random read", BlkOp::kRead, 1, false, sleep);
    measure(disk(0), "4 KiB random read", BlkOp::kRead, 32, false, sleep);
    measure(disk(0), "4 KiB random write", BlkOp::kWrite, 32, false, sleep);
    measure(disk(0), "4 KiB random write + flush", BlkOp::kWrite, 1, true, sleep);
  }
}

// As a hypervisor without firmware would leave it: the second entropy device, which nobody uses, loses its addresses.
TEST_F(Machine, BaseAddressesThatNobodyAssignedAreAssigned) {
  std::vector<PciFunction> functions = pci_scan();
  if (functions.empty()) return;  // microvm
  PciFunction* spare = nullptr;
  for (PciFunction& function : functions) {
    if (is_virtio(function) && pci_read16(function.where, pci::kSubsystem) == 4) spare = &function;
  }
  ASSERT_NE(spare, nullptr);
  std::uint16_t command = pci_read16(spare->where, pci::kCommand);
  pci_write16(spare->where, pci::kCommand, command & ~pci::kCommandMemory);
  for (std::uint16_t i = 0; i < 6; ++i) pci_write32(spare->where, pci::kBar0 + 4 * i, 0);
  *spare = PciFunction{spare->where, spare->vendor, spare->device, {}};
  pci_read_bars(*spare);
  EXPECT_FALSE(spare->decodes_memory());
  EXPECT_EQ(spare->bars[4].address.value, 0u);
  pci_assign_bars(functions);
  for (const PciBar& bar : spare->bars) {
    if (bar.size_bytes == 0) continue;  // not there
    EXPECT_NE(bar.address.value, 0u);
    EXPECT_EQ(bar.address.value % bar.size_bytes, 0u);
  }
  auto rng = open_virtio_pci(*spare);
  ASSERT_TRUE(rng) << rng.error().to_string();
  auto driver = VirtioRng::create(*std::move(rng), kernel_dma_memory());
  ASSERT_TRUE(driver) << driver.error().to_string();
  std::array<std::byte, 32> bytes{};
  EXPECT_TRUE((*driver)->fill(bytes, 1'000'000, &monotonic_ns));
}

// An ARP request for the gateway of QEMU's user network, which always answers.
TEST_F(Machine, NetworkAnswersAnAddressRequest) {
  VirtioNet& net = *virtio_devices().networks.at(0);
  EXPECT_EQ(net.mac(), (MacAddress{0x52, 0x54, 0, 0x12, 0x34, 0x56}));
  EXPECT_TRUE(net.link_up());
  std::vector<std::uint8_t> frame(60, 0);
  std::memset(frame.data(), 0xff, 6);
  std::memcpy(&frame[6], net.mac().data(), 6);
  const std::array<std::uint8_t, 10> kind{0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1};
  std::memcpy(&frame[12], kind.data(), kind.size());
  std::memcpy(&frame[22], net.mac().data(), 6);
  const std::array<std::uint8_t, 4> own{10, 0, 2, 15}, gateway{10, 0, 2, 2};
  std::memcpy(&frame[28], own.data(), 4);
  std::memcpy(&frame[38], gateway.data(), 4);
  Bytes head = std::as_bytes(std::span(frame)).first(14), rest = std::as_bytes(std::span(frame)).subspan(14);
  for (int round = 0; round < 600; ++round) {  // more than two times the ring
    Bytes pieces[] = {head, rest};
    ASSERT_EQ(net.send(pieces), SendStatus::kQueued);
    net.kick_tx();
    bool answered = false;
    std::uint64_t deadline = monotonic_ns() + 10 * kSecondNs;
    while (!answered && monotonic_ns() < deadline) {
      std::size_t got = net.poll_rx([&](Bytes in, bool) {
        if (in.size() >= 42 && std::memcmp(in.data() + 12, kind.data(), 8) == 0 &&
            std::memcmp(in.data() + 28, gateway.data(), 4) == 0) answered = true;
      });
      if (got == 0 && net.arm()) halt_until_interrupt_or(deadline);
    }
    ASSERT_TRUE(answered) << "round " << round;
  }
  EXPECT_EQ(net.stats().rx_errors, 0u);
}

TEST_F(Machine, HostGivesEntropy) {
  ASSERT_TRUE(reseed_from_host());
  std::array<std::byte, 64> a, b;
  VirtioRng& rng = *virtio_devices().entropy;
  ASSERT_TRUE(rng.fill(a, 1'000'000, &monotonic_ns));
  ASSERT_TRUE(rng.fill(b, 1'000'000, &monotonic_ns));
  EXPECT_NE(std::memcmp(a.data(), b.data(), a.size()), 0);
}

}  // namespace
}  // namespace kelda::tests
