#include "net/lwip_loopback.h"

#include <algorithm>

#include "common/assert.h"
#include "lwip/ip.h"
#include "lwip/pbuf.h"

namespace kelda::net::lwip {

void Loopback::attach(const Faults& faults) {
  faults_ = faults;
  dice_ = Prng(faults.seed);
  const ip4_addr_t address{PP_HTONL(0x7f000001)};
  const ip4_addr_t mask{PP_HTONL(0xff000000)};
  KELDA_ASSERT(netif_add(&device_, &address, &mask, nullptr, this, init, ip_input) != nullptr);
  netif_set_up(&device_);
}

void Loopback::detach() {
  netif_remove(&device_);  // resets the connections that are left
  for (Packet& packet : queue_) pbuf_free(packet.data);
  queue_.clear();
}

err_t Loopback::init(netif* device) {
  device->name[0] = 'l';
  device->name[1] = 'o';
  device->output = send;
  device->mtu = 1500;
  device->flags = NETIF_FLAG_LINK_UP;
  NETIF_SET_CHECKSUM_CTRL(device, NETIF_CHECKSUM_DISABLE_ALL);
  return ERR_OK;
}

err_t Loopback::send(netif* device, pbuf* packet, const ip4_addr*) {
  auto& self = *static_cast<Loopback*>(device->state);
  if (self.dice_.below(100) < self.faults_.lost_percent) return ERR_OK;
  const int copies = self.dice_.below(100) < self.faults_.doubled_percent ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    if (!self.enqueue(*packet)) return ERR_MEM;
  }
  return ERR_OK;
}

bool Loopback::enqueue(const pbuf& packet) {
  pbuf* copy = pbuf_alloc(PBUF_RAW, packet.tot_len, PBUF_RAM);
  if (copy == nullptr) return false;
  KELDA_ASSERT(pbuf_copy(copy, &packet) == ERR_OK);
  runtime::TimeNs arrives_ns = runtime::now_ns() + faults_.delay_ns;
  if (faults_.jitter_ns > 0) arrives_ns += dice_.below(faults_.jitter_ns);
  auto later = [](runtime::TimeNs time, const Packet& other) { return time < other.arrives_ns; };
  queue_.insert(std::upper_bound(queue_.begin(), queue_.end(), arrives_ns, later), {copy, arrives_ns});
  return true;
}

std::size_t Loopback::deliver(std::size_t limit) {
  std::size_t count = 0;
  while (count < limit && !queue_.empty() && queue_.front().arrives_ns <= runtime::now_ns()) {
    pbuf* packet = queue_.front().data;
    queue_.pop_front();
    if (device_.input(packet, &device_) != ERR_OK) pbuf_free(packet);
    ++count;
  }
  return count;
}

}  // namespace kelda::net::lwip
