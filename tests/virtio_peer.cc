#include "tests/virtio_peer.h"

#include <atomic>

namespace kelda::tests {
namespace {

constexpr std::uint16_t kNext = 1, kWrite = 2, kIndirect = 4;

// Sequentially consistent, for the pairs of store and load that decide on notifications.
std::uint16_t load(std::uint16_t& at) { return std::atomic_ref(at).load(); }
void store(std::uint16_t& at, std::uint16_t value) { std::atomic_ref(at).store(value); }

class PeerTransport final : public kernel::VirtioTransport {
 public:
  explicit PeerTransport(PeerDevice& device) : device_(device) {}
  std::uint32_t device_type() const override { return device_.type; }
  std::string where() const override { return "peer"; }
  std::uint8_t status() override { return device_.status; }
  void set_status(std::uint8_t status) override {
    if (status == 0) device_.queues.clear(), device_.sinks.clear();
    device_.status = status;
    if (device_.refuse_features) device_.status &= ~8;
  }
  std::uint64_t device_features() override { return device_.features; }
  void set_driver_features(std::uint64_t features) override { device_.accepted = features; }
  std::uint32_t config_generation() override { return 0; }
  std::uint8_t config8(std::size_t offset) override { return config<std::uint8_t>(offset); }
  std::uint16_t config16(std::size_t offset) override { return config<std::uint16_t>(offset); }
  std::uint32_t config32(std::size_t offset) override { return config<std::uint32_t>(offset); }
  std::uint16_t queue_size_max(std::uint16_t index) override { return index < device_.queue_count ? device_.queue_size : 0; }
  Result<> enable_queue(std::uint16_t index, const VirtQueue& queue, const InterruptSink& sink) override {
    if (device_.queues.size() <= index) device_.queues.resize(index + 1), device_.sinks.resize(index + 1);
    bool event_index = (device_.accepted & kernel::feature_bit(29)) != 0;
    device_.queues[index] = std::make_unique<PeerQueue>(queue.addresses(), queue.size(), event_index);
    device_.sinks[index] = sink;
    return {};
  }
  Result<> enable_config_interrupt(const InterruptSink& sink) override {
    device_.config_sink = sink;
    return {};
  }
  void notify(std::uint16_t index) override {
    ++device_.notifications;
    device_.on_notify(index);
  }

 private:
  template <class T>
  T config(std::size_t offset) {
    T value;
    std::memcpy(&value, device_.config.data() + offset, sizeof value);
    return value;
  }
  PeerDevice& device_;
};

}  // namespace

void PeerQueue::walk(std::byte* table, std::size_t count, std::uint16_t first, PeerChain& chain) {
  std::uint16_t at = first;
  for (std::size_t steps = 0;; ++steps) {
    if (at >= count || steps >= count) {
      ++malformed;
      return;
    }
    Descriptor d;
    std::memcpy(&d, table + at * sizeof d, sizeof d);
    if ((d.flags & kIndirect) != 0) {
      // Only as the one descriptor of a chain, never inside a table (2.7.5.3.1).
      if (chain.indirect || (d.flags & kNext) != 0 || d.size % sizeof d != 0) ++malformed;
      chain.indirect = true;
      walk(PeerMemory::from_device(d.address), d.size / sizeof d, 0, chain);
      return;
    }
    DmaSegment segment{PhysAddr(d.address), d.size};
    if ((d.flags & kWrite) != 0) {
      chain.writes.push_back(segment);
    } else {
      if (!chain.writes.empty()) ++malformed;  // what the device reads comes first (2.7.4.2)
      chain.reads.push_back(segment);
    }
    if ((d.flags & kNext) == 0) return;
    at = d.next;
  }
}

std::optional<PeerChain> PeerQueue::take() {
  if (load(word(available_, 2)) == next_available_) return std::nullopt;
  PeerChain chain;
  chain.head = word(available_, 4 + 2 * (next_available_ % size_));
  ++next_available_;
  walk(descriptors_, size_, chain.head, chain);
  return chain;
}

bool PeerQueue::complete(std::uint16_t head, std::uint32_t written_bytes) { return complete_raw(head, written_bytes); }

bool PeerQueue::complete_raw(std::uint32_t id, std::uint32_t written_bytes) {
  std::byte* entry = used_ + 4 + 8 * (next_used_ % size_);
  std::memcpy(entry, &id, 4);
  std::memcpy(entry + 4, &written_bytes, 4);
  std::uint16_t before = next_used_++;
  store(word(used_, 2), next_used_);
  if (!event_index_) return (load(word(available_, 0)) & 1) == 0;
  std::uint16_t event = load(word(available_, 4 + 2 * size_));
  return event == before;  // one entry at a time: passed exactly when it was the awaited one
}

bool PeerQueue::want_notification() {
  if (event_index_) store(word(used_, 4 + 8 * size_), next_available_);
  else store(word(used_, 0), 0);
  return load(word(available_, 2)) == next_available_;
}

void PeerQueue::refuse_notifications() {
  if (event_index_) store(word(used_, 4 + 8 * size_), next_available_ - 1);
  else store(word(used_, 0), 1);
}

std::unique_ptr<kernel::VirtioTransport> PeerDevice::transport() { return std::make_unique<PeerTransport>(*this); }

}  // namespace kelda::tests
