// The answer to any Ethernet frame: none, or a frame of fixed shape for the client that asked.
#include "common/assert.h"
#include "fuzz/fuzz_target.h"
#include "fuzz/input.h"
#include "net/dhcp_responder.h"

namespace kelda::fuzz {

namespace {

void run(Bytes bytes) {
  const net::DhcpLease lease{{0x52, 0x55, 0x0a, 0, 2, 2}, 0x0a000202, 0x0a00020f, 0xffffff00};
  // Only with the fixed fields in place does it read on: every second input gets them.
  Input input(bytes);
  const bool shaped = input.byte() % 2 != 0;
  const Bytes rest = input.rest();
  std::vector<std::byte> frame(rest.begin(), rest.end());
  if (shaped && frame.size() > 282) {
    const auto put = [&](std::size_t at, std::initializer_list<unsigned> values) {
      for (const unsigned value : values) frame[at++] = static_cast<std::byte>(value);
    };
    put(12, {8, 0, 0x45});
    put(23, {17});
    put(36, {0, 67});
    put(42, {1});
    put(278, {0x63, 0x82, 0x53, 0x63});
  }
  const auto answer = net::answer_dhcp(frame, lease);
  KELDA_ASSERT(!answer || answer->size() > 282);
}

}  // namespace

const FuzzTarget kDhcp = {"dhcp", run};

}  // namespace kelda::fuzz
