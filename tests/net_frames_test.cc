// Ethernet frames straight into the stack, from a device that is all in the test: hostile ones too.
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "common/prng.h"
#include "net/lwip_port.h"
#include "net/lwip_stack.h"
#include "runtime/core.h"

namespace kelda::net::lwip {
namespace {

using runtime::Core;
using runtime::now_ns;
using Frame = std::vector<std::uint8_t>;

constexpr runtime::TimeNs kMs = 1'000'000;
constexpr MacAddress kOurMac{0x52, 0x54, 0, 1, 2, 3};
constexpr MacAddress kPeerMac{0x52, 0x54, 0, 9, 9, 9};
constexpr std::uint32_t kOurIp = 0x0a090002, kPeerIp = 0x0a090001;

struct Wire {
  std::deque<Frame> to_stack;
  std::deque<Frame> from_stack;
  std::size_t room = 1000;  // frames of from_stack
};

class TestNic : public Nic {
 public:
  explicit TestNic(Wire& wire) : wire_(wire) {}
  Info info() const override { return {"test", kOurMac, false, false}; }
  std::size_t receive(Sink& sink, std::size_t limit) override {
    std::size_t count = 0;
    for (; count < limit && !wire_.to_stack.empty(); ++count) {
      const Frame frame = std::move(wire_.to_stack.front());
      wire_.to_stack.pop_front();
      sink.frame(std::as_bytes(std::span(frame)), false);
    }
    return count;
  }
  bool send(std::span<const Bytes> pieces, PartialChecksum) override {
    if (wire_.from_stack.size() >= wire_.room) return false;
    Frame frame;
    for (Bytes piece : pieces) {
      const auto* data = reinterpret_cast<const std::uint8_t*>(piece.data());
      frame.insert(frame.end(), data, data + piece.size());
    }
    wire_.from_stack.push_back(std::move(frame));
    return true;
  }
  void flush() override {}
  bool arm_interrupt() override { return wire_.to_stack.empty(); }
  void disarm_interrupt() override {}

 private:
  Wire& wire_;
};

void put16(Frame& frame, std::size_t at, std::uint32_t value) {
  frame[at] = static_cast<std::uint8_t>(value >> 8);
  frame[at + 1] = static_cast<std::uint8_t>(value);
}
void put32(Frame& frame, std::size_t at, std::uint32_t value) {
  put16(frame, at, value >> 16);
  put16(frame, at + 2, value & 0xffff);
}
std::uint32_t get16(const Frame& frame, std::size_t at) { return frame[at] << 8 | frame[at + 1]; }
std::uint32_t get32(const Frame& frame, std::size_t at) { return get16(frame, at) << 16 | get16(frame, at + 2); }

std::uint32_t sum16(const Frame& frame, std::size_t begin, std::size_t end) {
  std::uint32_t sum = 0;
  for (std::size_t i = begin; i < end; i += 2) sum += frame[i] << 8 | (i + 1 < end ? frame[i + 1] : 0);
  return sum;
}
std::uint16_t folded(std::uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

Frame ethernet(std::uint16_t type, std::size_t payload_bytes) {
  Frame frame(14 + payload_bytes);
  std::memcpy(frame.data(), kOurMac.data(), 6);
  std::memcpy(frame.data() + 6, kPeerMac.data(), 6);
  put16(frame, 12, type);
  return frame;
}

// Ethernet header, then hardware and protocol types, sizes, operation, sender's and target's addresses.
Frame arp(std::uint16_t operation) {
  Frame frame = ethernet(0x0806, 28);
  put16(frame, 14, 1);
  put16(frame, 16, 0x0800);
  frame[18] = 6;
  frame[19] = 4;
  put16(frame, 20, operation);
  std::memcpy(frame.data() + 22, kPeerMac.data(), 6);
  put32(frame, 28, kPeerIp);
  put32(frame, 38, kOurIp);
  return frame;
}

Frame ipv4(std::uint8_t protocol, const Frame& payload) {
  Frame frame = ethernet(0x0800, 20 + payload.size());
  frame[14] = 0x45;
  put16(frame, 16, 20 + payload.size());
  frame[22] = 64;
  frame[23] = protocol;
  put32(frame, 26, kPeerIp);
  put32(frame, 30, kOurIp);
  put16(frame, 24, folded(sum16(frame, 14, 34)));
  std::copy(payload.begin(), payload.end(), frame.begin() + 34);
  return frame;
}

void fix_tcp_checksum(Frame& frame) {
  put16(frame, 34 + 16, 0);
  const std::size_t bytes = frame.size() - 34;
  put16(frame, 34 + 16, folded(sum16(frame, 26, 34) + 6 + bytes + sum16(frame, 34, frame.size())));
}

Frame tcp(std::uint16_t from, std::uint16_t to, std::uint32_t sequence, std::uint32_t ack, std::uint8_t flags,
          const std::string& data = "") {
  Frame segment(20 + data.size());
  put16(segment, 0, from);
  put16(segment, 2, to);
  put32(segment, 4, sequence);
  put32(segment, 8, ack);
  segment[12] = 0x50;
  segment[13] = flags;
  put16(segment, 14, 8192);
  std::copy(data.begin(), data.end(), segment.begin() + 20);
  Frame frame = ipv4(6, segment);
  fix_tcp_checksum(frame);
  return frame;
}

Frame with_window(Frame frame, std::uint32_t bytes) {
  put16(frame, 34 + 14, bytes);
  fix_tcp_checksum(frame);
  return frame;
}

Frame udp(std::uint16_t to, std::size_t payload_bytes) {
  Frame datagram(8 + payload_bytes);
  put16(datagram, 0, 67);
  put16(datagram, 2, to);
  put16(datagram, 4, datagram.size());
  return ipv4(17, datagram);
}

Frame ping() {
  Frame message(16);
  message[0] = 8;
  put16(message, 2, folded(sum16(message, 0, 16)));
  return ipv4(1, message);
}

class Frames : public ::testing::Test {
 protected:
  PeerTimeouts peers_;

  void run(std::move_only_function<void(Stack&, Wire&)> body) {
    run_on(1, [&](runtime::Runtime&, Stack& stack, Wire& wire) { body(stack, wire); });
  }

  void run_on(std::uint32_t core_count, std::move_only_function<void(runtime::Runtime&, Stack&, Wire&)> body) {
    auto result = runtime::Runtime::run({.core_count = core_count}, [&](runtime::Runtime& runtime) {
      Wire wire;
      const StackOptions options{.peers = peers_, .address = "10.9.0.2/24", .memory_limit_bytes = 1 << 20};
      {
        Stack stack(std::make_unique<TestNic>(wire), options);
        auto info = stack.bring_up(options);
        EXPECT_TRUE(info);
        EXPECT_EQ(info->address, "10.9.0.2/24");
        body(runtime, stack, wire);
      }
      return 0;
    });
    ASSERT_TRUE(result) << result.error().to_string();
  }

  // Hands frames to the stack and returns what it sent in answer.
  static std::deque<Frame> exchange(Wire& wire, std::vector<Frame> frames) {
    wire.from_stack.clear();
    for (Frame& frame : frames) wire.to_stack.push_back(std::move(frame));
    while (!wire.to_stack.empty()) Core::current().yield();
    Core::current().yield();
    return std::move(wire.from_stack);
  }

  // Opens a connection from `port` to our port 80, with 1001 as the peer's first number; returns the first of ours.
  static std::uint32_t shake_hands(Wire& wire, std::uint16_t port) {
    const auto answers = exchange(wire, {tcp(port, 80, 1000, 0, 0x02)});
    const std::uint32_t theirs = get32(answers.at(0), 34 + 4) + 1;
    exchange(wire, {tcp(port, 80, 1001, theirs, 0x10)});
    return theirs;
  }

  static void expect_alive(Wire& wire) {
    auto answers = exchange(wire, {arp(1)});
    bool answered = false;
    for (const Frame& answer : answers) {
      answered |= answer.size() >= 42 && get16(answer, 12) == 0x0806 && get16(answer, 20) == 2 && get32(answer, 28) == kOurIp;
    }
    EXPECT_TRUE(answered) << "the stack no longer answers ARP";
  }
};

TEST_F(Frames, AnswersArpAndPing) {
  run([](Stack&, Wire& wire) {
    expect_alive(wire);
    auto answers = exchange(wire, {ping()});
    ASSERT_EQ(answers.size(), 1u);
    EXPECT_EQ(answers[0][23], 1);
    EXPECT_EQ(answers[0][34], 0) << "an echo reply";
  });
}

TEST_F(Frames, PromisesNoMoreThanTheFirstWindow) {
  run([](Stack& stack, Wire& wire) {
    auto listener = std::move(*stack.listen({0, 80}, 1));
    expect_alive(wire);  // so that it knows our address
    auto answers = exchange(wire, {tcp(1234, 80, 1000, 0, 0x02)});
    ASSERT_EQ(answers.size(), 1u);
    EXPECT_EQ(answers[0][34 + 13], 0x12) << "SYN and ACK";
    EXPECT_LE(get16(answers[0], 34 + 14), WindowPool::kFirstBytes);
    listener->close();
  });
}

TEST_F(Frames, AnswersToManyClientsWaitUntilTheWayIsKnown) {
  run([](Stack& stack, Wire& wire) {
    auto listener = std::move(*stack.listen({0, 80}, 1));
    constexpr std::uint16_t kClients = 500;
    std::vector<Frame> syns;
    for (std::uint16_t i = 0; i < kClients; ++i) syns.push_back(tcp(2000 + i, 80, 1000, 0, 0x02));
    for (const Frame& frame : exchange(wire, std::move(syns))) EXPECT_EQ(get16(frame, 12), 0x0806) << "asks who has the address";
    std::size_t answered = 0;
    for (const Frame& frame : exchange(wire, {arp(2)})) answered += get16(frame, 12) == 0x0800 && frame[34 + 13] == 0x12;
    EXPECT_EQ(answered, kClients);
    listener->close();
  });
}

TEST_F(Frames, ServesASegmentByHand) {
  run([](Stack& stack, Wire& wire) {
    auto listener = std::move(*stack.listen({0, 80}, 1));
    expect_alive(wire);
    const std::uint32_t theirs = shake_hands(wire, 1234);
    exchange(wire, {tcp(1234, 80, 1001, theirs, 0x18, "GET a")});
    auto connection = std::move(*listener->accept());
    EXPECT_EQ(connection->peer(), "10.9.0.1:1234");
    std::byte buffer[16];
    EXPECT_EQ(*connection->read(buffer), 5u);
    exchange(wire, {tcp(1234, 80, 1006, theirs, 0x04)});  // a reset
    EXPECT_TRUE(connection->read(buffer).failed_with(Code::kClosed));
    EXPECT_TRUE(connection->write(Bytes(buffer)).failed_with(Code::kClosed));
    connection.reset();
    listener->close();
  });
}

// Sends all that the window takes, again and again, and never asks whether a closed one has opened, as some peers do
// not. An even number of segments at first: every second one is acknowledged at once, so nothing else will be said.
// Returns the next sequence number; sets `stalled` when the window stays closed.
std::uint32_t fill_windows(Wire& wire, std::uint16_t port, std::uint32_t theirs, std::size_t count_bytes, bool& stalled) {
  constexpr std::uint32_t kFirst = 1001, kSegmentBytes = 1024;
  std::uint32_t next = kFirst, edge = kFirst + WindowPool::kFirstBytes;
  while (next - kFirst < count_bytes && !stalled) {
    while (next != edge) {
      const std::uint32_t size = std::min(edge - next, kSegmentBytes);
      wire.to_stack.push_back(tcp(port, 80, next, theirs, 0x10, std::string(size, 'x')));
      next += size;
    }
    const runtime::TimeNs begin = now_ns();
    while (edge == next && !stalled) {
      Core::current().yield();
      for (const Frame& frame : std::exchange(wire.from_stack, {})) {
        if (get16(frame, 34 + 2) == port) edge = get32(frame, 34 + 8) + get16(frame, 34 + 14);
      }
      stalled = now_ns() - begin > 5'000 * kMs;
    }
  }
  return next;
}

TEST_F(Frames, AClosedWindowOpensWithoutBeingAskedFor) {
  run_on(2, [](runtime::Runtime& runtime, Stack& stack, Wire& wire) {
    auto listener = std::move(*stack.listen({0, 80}, 2));
    expect_alive(wire);
    std::uint16_t port = 1234;
    for (const std::size_t read_bytes : {16 * 1024, 4097, 4500, 5000, 3000, 1460, 700}) {
      runtime::Completion readers;
      for (std::uint32_t core = 0; core < 2; ++core) {
        readers.add();
        ASSERT_TRUE(runtime.core(core).spawn_remote([&] {
          auto connection = listener->accept();
          std::vector<std::byte> buffer(read_bytes);
          // After each read the stack's core does what it was told of, so that what is told late shows.
          while (connection && (*connection)->read(buffer)) stack.call([] {});
          if (connection) connection->reset();
          readers.done();
        }));
      }
      for (int i = 0; i < 2; ++i, ++port) {  // one is dealt to each core
        const std::uint32_t theirs = shake_hands(wire, port);
        bool stalled = false;
        const std::uint32_t next = fill_windows(wire, port, theirs, 300'000, stalled);
        EXPECT_FALSE(stalled) << "reads of " << read_bytes << " bytes, after " << next - 1001;
        exchange(wire, {tcp(port, 80, next, theirs, 0x04)});  // a reset
      }
      readers.wait();
    }
    listener->close();
  });
}

TEST_F(Frames, WhatFoundTheDeviceFullLeavesAsSoonAsThereIsRoom) {
  run([](Stack& stack, Wire& wire) {
    auto listener = std::move(*stack.listen({0, 80}, 1));
    expect_alive(wire);
    shake_hands(wire, 1234);
    auto connection = std::move(*listener->accept());
    wire.from_stack.clear();
    wire.room = 1;
    const std::vector<std::byte> reply(1500);  // three segments, which the first window of congestion lets out at once
    ASSERT_TRUE(connection->write(Bytes(reply)));
    for (int i = 0; i < 5; ++i) Core::current().yield();
    EXPECT_EQ(wire.from_stack.size(), 1u);
    wire.room = 1000;
    for (int i = 0; i < 5; ++i) Core::current().yield();
    std::size_t sent_bytes = 0;
    for (const Frame& frame : wire.from_stack) sent_bytes += get16(frame, 16) - 40;
    EXPECT_EQ(sent_bytes, reply.size());
    connection.reset();
    listener->close();
  });
}

// A peer that acknowledges its closed window for ever, and one that says nothing any more.
TEST_F(Frames, PeersThatAreStuckOrGoneAreCutOff) {
  peers_ = {.keepalive_s = 1, .send_timeout_s = 3};
  run([](Stack& stack, Wire& wire) {
    auto listener = std::move(*stack.listen({0, 80}, 1));
    expect_alive(wire);
    std::vector<std::unique_ptr<Connection>> connections;
    std::uint32_t theirs[2] = {};
    for (std::uint16_t i = 0; i < 2; ++i) {
      theirs[i] = shake_hands(wire, 1234 + i);
      connections.push_back(std::move(*listener->accept()));
    }
    std::byte buffer[16] = {};
    // The first takes a window of nothing and answers every probe; so it is alive, and never takes the reply.
    exchange(wire, {with_window(tcp(1234, 80, 1001, theirs[0], 0x10), 0)});
    ASSERT_TRUE(connections[0]->write(Bytes(buffer)));
    bool ended[2] = {};
    const runtime::TimeNs begin = now_ns();
    while (now_ns() - begin < 30'000 * kMs && !(ended[0] && ended[1])) {
      for (const Frame& frame : std::exchange(wire.from_stack, {})) {
        if (get16(frame, 34 + 2) == 1234) exchange(wire, {with_window(tcp(1234, 80, 1001, theirs[0], 0x10), 0)});
      }
      for (int i = 0; i < 2; ++i) ended[i] = ended[i] || connections[i]->read(buffer, now_ns() + 10 * kMs).failed_with(Code::kClosed);
    }
    EXPECT_TRUE(ended[0]) << "a closed window";
    EXPECT_TRUE(ended[1]) << "silence";
    EXPECT_GE(now_ns() - begin, 1'000 * kMs);
    connections.clear();
    listener->close();
  });
}

TEST_F(Frames, GarbageDoesNoHarm) {
  run([](Stack& stack, Wire& wire) {
    auto listener = std::move(*stack.listen({0, 80}, 1));
    ASSERT_TRUE(Core::current().spawn([&] {
      while (auto connection = listener->accept()) {
      }
    }));
    expect_alive(wire);
    const std::vector<Frame> seeds{arp(1), arp(2), ping(), udp(68, 300), udp(9, 0), tcp(1234, 80, 1000, 0, 0x02),
                                   tcp(1234, 80, 1001, 5, 0x18, "data"), tcp(1234, 81, 1, 1, 0x10)};
    Prng dice(7);
    std::size_t answers = 0;
    for (int round = 0; round < 300; ++round) {
      std::vector<Frame> batch;
      for (int i = 0; i < 50; ++i) {
        Frame frame = seeds[dice.next() % seeds.size()];
        for (std::uint64_t flips = dice.next() % 6; flips > 0; --flips) {
          frame[12 + dice.next() % (frame.size() - 12)] = static_cast<std::uint8_t>(dice.next());
        }
        if (dice.next() % 4 == 0) frame.resize(dice.next() % (frame.size() + 200));
        // Half of them with checksums that hold, so that they get deeper.
        if (frame.size() >= 54 && dice.next() % 2 == 0) {
          put16(frame, 24, 0);
          put16(frame, 24, folded(sum16(frame, 14, 34)));
          fix_tcp_checksum(frame);
        }
        batch.push_back(std::move(frame));
      }
      answers += exchange(wire, std::move(batch)).size();
    }
    EXPECT_GT(answers, 1000u) << "the frames were heard";
    EXPECT_LE(memory_used_bytes(), 1u << 20);
    expect_alive(wire);
    listener->close();
  });
}

TEST_F(Frames, FloodOfSynsIsBounded) {
  run([](Stack& stack, Wire& wire) {
    auto listener = std::move(*stack.listen({0, 80}, 1));
    expect_alive(wire);
    for (std::uint32_t i = 0; i < 20'000; i += 50) {
      std::vector<Frame> batch;
      for (std::uint32_t k = i; k < i + 50; ++k) batch.push_back(tcp(static_cast<std::uint16_t>(1024 + k), 80, k, 0, 0x02));
      exchange(wire, std::move(batch));
    }
    EXPECT_LE(memory_used_bytes(), 1u << 20);
    expect_alive(wire);
    listener->close();
  });
}

}  // namespace
}  // namespace kelda::net::lwip
