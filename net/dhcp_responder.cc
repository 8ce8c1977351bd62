#include "net/dhcp_responder.h"

#include <cstring>

namespace kelda::net {
namespace {

// Ethernet 14, IPv4 20, UDP 8, then the message (RFC 2131, section 2):
//    0 op  1 htype  2 hlen  3 hops  4 xid  8 secs  10 flags  12 ciaddr  16 yiaddr  20 siaddr  24 giaddr
//   28 chaddr[16]  44 sname[64]  108 file[128]  236 cookie  240 options
constexpr std::size_t kIp = 14, kUdp = 34, kMessage = 42, kOptions = kMessage + 240;
constexpr std::uint32_t kCookie = 0x63825363;
constexpr std::uint8_t kDiscover = 1, kOffer = 2, kRequest = 3, kAck = 5;
constexpr std::uint32_t kLeaseSeconds = 86400;

std::uint32_t get(Bytes frame, std::size_t at, std::size_t count) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < count; ++i) value = value << 8 | static_cast<std::uint8_t>(frame[at + i]);
  return value;
}

class Writer {
 public:
  explicit Writer(std::vector<std::byte>& out) : out_(out) {}
  void put(std::size_t at, std::uint32_t value, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) out_[at + i] = static_cast<std::byte>(value >> 8 * (count - 1 - i));
  }
  void option(std::uint8_t code, std::uint32_t value, std::uint8_t count) {
    out_.push_back(std::byte{code});
    out_.push_back(std::byte{count});
    out_.resize(out_.size() + count);
    put(out_.size() - count, value, count);
  }

 private:
  std::vector<std::byte>& out_;
};

bool is_request(Bytes frame) {
  return frame.size() > kOptions && get(frame, 12, 2) == 0x0800 && get(frame, kIp, 1) == 0x45 &&
         get(frame, kIp + 9, 1) == 17 && get(frame, kUdp + 2, 2) == 67 && get(frame, kMessage, 1) == 1 &&
         get(frame, kMessage + 236, 4) == kCookie;
}

// Option 53; 0 when there is none.
std::uint8_t message_type(Bytes frame) {
  for (std::size_t at = kOptions; at + 2 < frame.size();) {
    const std::uint32_t code = get(frame, at, 1);
    if (code == 255) break;
    if (code == 53) return static_cast<std::uint8_t>(get(frame, at + 2, 1));
    at += code == 0 ? 1 : 2 + get(frame, at + 1, 1);
  }
  return 0;
}

std::uint16_t ip_checksum(Bytes frame) {
  std::uint32_t sum = 0;
  for (std::size_t at = kIp; at < kUdp; at += 2) sum += get(frame, at, 2);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

}  // namespace

std::optional<std::vector<std::byte>> answer_dhcp(Bytes frame, const DhcpLease& lease) {
  if (!is_request(frame)) return std::nullopt;
  const std::uint8_t type = message_type(frame);
  if (type != kDiscover && type != kRequest) return std::nullopt;

  std::vector<std::byte> reply(kOptions);
  Writer writer(reply);
  // The message first: xid and the client's hardware address come back as they were.
  std::memcpy(reply.data() + kMessage, frame.data() + kMessage, 44);
  writer.put(kMessage, 2, 1);
  writer.put(kMessage + 16, lease.client, 4);
  writer.put(kMessage + 20, lease.server, 4);
  writer.put(kMessage + 236, kCookie, 4);
  writer.option(53, type == kDiscover ? kOffer : kAck, 1);
  writer.option(54, lease.server, 4);
  writer.option(51, kLeaseSeconds, 4);
  writer.option(1, lease.mask, 4);
  writer.option(3, lease.server, 4);
  reply.push_back(std::byte{255});

  std::memset(reply.data(), 0xff, 6);
  std::memcpy(reply.data() + 6, lease.server_mac.data(), 6);
  writer.put(12, 0x0800, 2);
  writer.put(kIp, 0x45, 1);
  writer.put(kIp + 2, static_cast<std::uint32_t>(reply.size() - kIp), 2);
  writer.put(kIp + 8, 64, 1);
  writer.put(kIp + 9, 17, 1);
  writer.put(kIp + 12, lease.server, 4);
  writer.put(kIp + 16, 0xffffffff, 4);
  writer.put(kIp + 10, ip_checksum(reply), 2);
  writer.put(kUdp, 67, 2);
  writer.put(kUdp + 2, 68, 2);
  writer.put(kUdp + 4, static_cast<std::uint32_t>(reply.size() - kUdp), 2);  // its checksum is optional: 0
  return reply;
}

}  // namespace kelda::net
