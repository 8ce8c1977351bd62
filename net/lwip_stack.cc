#include "net/lwip_stack.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "common/assert.h"
#include "common/planted_bug.h"
#include "lwip/dhcp.h"
#include "lwip/etharp.h"
#include "lwip/init.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/tcp.h"
#include "lwip/tcp.h"
#include "lwip/timeouts.h"
#include "net/lwip_port.h"
#include "netif/ethernet.h"

namespace kelda::net::lwip {
namespace {

using runtime::TimeNs;

// Frames taken from the device in one turn of the loop, so that fibers get their turn under load.
constexpr std::size_t kFramesPerTurn = 64;
constexpr TimeNs kLeaseTimeoutNs = 20'000'000'000;
constexpr std::size_t kMaxFramePieces = 16;
// On a cable nothing is shorter, and lwIP reads headers of that much without asking; a virtual device may deliver less.
constexpr std::size_t kShortestFrameBytes = 60;
constexpr std::size_t kLongestFrameBytes = 0xffff;  // what a pbuf can describe
constexpr TimeNs kFarewellNs = 10'000'000'000;

void init_once() {
  static const bool done = [] {
    lwip_init();
    return true;
  }();
  (void)done;
}

std::string mac_to_string(const MacAddress& mac) {
  char text[18];
  std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
  return text;
}

std::uint32_t host_order(const ip4_addr_t& address) { return lwip_ntohl(ip4_addr_get_u32(&address)); }

// The device completes the checksum of an IPv4 TCP segment: leaves the pseudo header's sum in the field (virtio 1.2,
// section 5.1.6.2.1) and says where it is. lwIP builds a segment's headers in one pbuf.
Nic::PartialChecksum prepare_checksum(pbuf& frame) {
  auto* bytes = static_cast<std::byte*>(frame.payload);
  if (frame.len < SIZEOF_ETH_HDR + IP_HLEN + TCP_HLEN) return {};
  const auto* ethernet = reinterpret_cast<const eth_hdr*>(bytes);
  const auto* ip = reinterpret_cast<const ip_hdr*>(bytes + SIZEOF_ETH_HDR);
  if (ethernet->type != PP_HTONS(ETHTYPE_IP) || IPH_PROTO(ip) != IP_PROTO_TCP) return {};
  const std::size_t header_bytes = IPH_HL_BYTES(ip);
  const std::size_t segment_bytes = lwip_ntohs(IPH_LEN(ip)) - header_bytes;
  std::uint16_t words[6];
  std::memcpy(words, &ip->src, 8);
  words[4] = PP_HTONS(IP_PROTO_TCP);
  words[5] = lwip_htons(static_cast<u16_t>(segment_bytes));
  auto* tcp = reinterpret_cast<tcp_hdr*>(bytes + SIZEOF_ETH_HDR + header_bytes);
  tcp->chksum = kelda_lwip_checksum(words, sizeof words);
  return {static_cast<std::uint16_t>(SIZEOF_ETH_HDR + header_bytes), offsetof(tcp_hdr, chksum), true};
}

}  // namespace

Stack::Stack(std::unique_ptr<Nic> nic, const StackOptions& options, const Loopback::Faults& faults)
    : core_(runtime::Core::current()), nic_(std::move(nic)), connection_limit_(options.connection_limit), peers_(options.peers),
      windows_(options.memory_limit_bytes / 2, TCP_WND) {
  set_memory_limit(options.memory_limit_bytes);
  init_once();
  loopback_.attach(faults);
  if (nic_) {
    nic_info_ = nic_->info();
    KELDA_ASSERT(netif_add(&device_, nullptr, nullptr, nullptr, this, init_netif, ethernet_input) != nullptr);
    netif_set_default(&device_);
    netif_set_status_callback(&device_, on_status);
  }
  core_.add_poller(*this);
}

Stack::~Stack() {
  core_.remove_poller(*this);
  loopback_.detach();
  if (nic_) {
    dhcp_release_and_stop(&device_);
    dhcp_cleanup(&device_);
    nic_->flush();
    netif_remove(&device_);
  }
  // Without its devices every connection has been reset. Connections that were let go on other cores may still be on
  // their way here, as messages.
  const TimeNs end_ns = runtime::now_ns() + kFarewellNs;
  while (windows_.in_use()) {
    KELDA_ASSERT(runtime::now_ns() < end_ns);  // a Connection has outlived the stack
    core_.yield();
  }
}

err_t Stack::init_netif(netif* device) {
  auto& self = *static_cast<Stack*>(device->state);
  device->name[0] = 'e';
  device->name[1] = 'n';
  device->hostname = "kelda";
  device->output = etharp_output;
  device->linkoutput = send_frame;
  device->mtu = 1500;
  device->hwaddr_len = ETH_HWADDR_LEN;
  std::memcpy(device->hwaddr, self.nic_info_.mac.data(), ETH_HWADDR_LEN);
  device->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_LINK_UP;
  self.checksum_flags_ = 0xff;
  if (self.nic_info_.fills_checksums) self.checksum_flags_ &= ~NETIF_CHECKSUM_GEN_TCP;
  NETIF_SET_CHECKSUM_CTRL(device, self.checksum_flags_);
  return ERR_OK;
}

void Stack::on_status(netif* device) {
  if (!ip4_addr_isany_val(*netif_ip4_addr(device))) static_cast<Stack*>(device->state)->has_address_.set();
}

Result<StackInfo> Stack::bring_up(const StackOptions& options) {
  if (!nic_) return StackInfo{"loopback", "127.0.0.1/8", "", ""};
  if (!options.address.empty()) TRY(set_static_address(options));
  netif_set_up(&device_);
  if (options.address.empty()) TRY(wait_for_lease());
  nic_->flush();

  StackInfo info;
  info.driver = nic_info_.driver;
  info.mac = mac_to_string(nic_info_.mac);
  const std::uint32_t mask = host_order(*netif_ip4_netmask(&device_));
  info.address = ipv4_to_string(host_order(*netif_ip4_addr(&device_))) + "/" + std::to_string(__builtin_popcount(mask));
  if (!ip4_addr_isany_val(*netif_ip4_gw(&device_))) info.gateway = ipv4_to_string(host_order(*netif_ip4_gw(&device_)));
  return info;
}

Result<> Stack::set_static_address(const StackOptions& options) {
  const Subnet subnet = TRY(parse_subnet(options.address));
  std::uint32_t gateway = 0;
  if (!options.gateway.empty()) gateway = TRY(parse_ipv4(options.gateway));
  const ip4_addr_t address{lwip_htonl(subnet.address)};
  const ip4_addr_t mask{lwip_htonl(subnet.mask())};
  const ip4_addr_t via{lwip_htonl(gateway)};
  netif_set_addr(&device_, &address, &mask, &via);
  return {};
}

Result<> Stack::wait_for_lease() {
  if (dhcp_start(&device_) != ERR_OK) return Error(Code::kOutOfMemory, "no memory to ask for an address");
  if (has_address_.wait_until(runtime::now_ns() + kLeaseTimeoutNs)) return {};
  return Error(Code::kTimeout, "no DHCP server leased an address within 20 s: connect the network device to a network "
                               "that has one, or give a static address");
}

// ---- the loop

std::size_t Stack::poll() {
  std::size_t events = nic_ ? nic_->receive(*this, kFramesPerTurn) : 0;
  events += loopback_.deliver(kFramesPerTurn);
  // What found the device full; by itself lwIP tries again with its timer, up to half a second later.
  if (std::exchange(device_was_full_, false)) tcp_txnow();
  sys_check_timeouts();
  // Also what fibers wrote since the last turn: one notification for all of it.
  if (nic_) nic_->flush();
  return events;
}

bool Stack::prepare_sleep() {
  if (!nic_) return true;
  nic_->flush();
  return nic_->arm_interrupt();
}

void Stack::after_sleep() {
  if (nic_) nic_->disarm_interrupt();
}

TimeNs Stack::next_deadline_ns() {
  const u32_t sleep_ms = sys_timeouts_sleeptime();
  const TimeNs timers_ns =
      sleep_ms == SYS_TIMEOUTS_SLEEPTIME_INFINITE ? runtime::kNever : runtime::now_ns() + sleep_ms * TimeNs{1'000'000};
  return std::min(timers_ns, loopback_.next_arrival_ns());
}

// Copied into memory of its own size: a connection that is slow to read then holds what it was sent, not the device's
// buffers, and the device never runs out of them.
void Stack::frame(Bytes bytes, bool checksum_is_good) {
  const std::size_t size = std::max(bytes.size(), kShortestFrameBytes);
  if (size > kLongestFrameBytes) return;
  pbuf* copy = pbuf_alloc(PBUF_RAW, static_cast<u16_t>(size), PBUF_RAM);
  if (copy == nullptr) return;  // out of memory: dropped, as a network may
  std::memcpy(copy->payload, bytes.data(), bytes.size());
  std::memset(static_cast<std::byte*>(copy->payload) + bytes.size(), 0, size - bytes.size());
  const unsigned unchecked = checksum_is_good ? NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP : 0;
  NETIF_SET_CHECKSUM_CTRL(&device_, static_cast<u16_t>(checksum_flags_ & ~unchecked));
  if (device_.input(copy, &device_) != ERR_OK) pbuf_free(copy);
}

err_t Stack::send_frame(netif* device, pbuf* frame) {
  auto& self = *static_cast<Stack*>(device->state);
  Nic::PartialChecksum checksum;
  if (self.nic_info_.fills_checksums) checksum = prepare_checksum(*frame);
  Bytes pieces[kMaxFramePieces];
  std::size_t count = 0;
  for (const pbuf* piece = frame; piece != nullptr; piece = piece->next) {
    if (count == kMaxFramePieces) return ERR_BUF;
    pieces[count++] = {static_cast<const std::byte*>(piece->payload), piece->len};
  }
  if (self.nic_->send({pieces, count}, checksum)) return ERR_OK;
  self.nic_->flush();
  if (self.nic_->send({pieces, count}, checksum)) return ERR_OK;
  self.device_was_full_ = !planted(Bug::kFullDeviceForgotten);
  return ERR_MEM;
}

}  // namespace kelda::net::lwip
