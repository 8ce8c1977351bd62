#include "kernel/virtio_mmio.h"

#include <fmt/format.h>
#define VIRTIO_MMIO_NO_LEGACY
#include <linux/virtio_mmio.h>

#include "kernel/interrupts.h"
#include "kernel/paging.h"

namespace kelda::kernel {
namespace {

constexpr std::uint32_t kMagic = 0x7472'6976;  // "virt"

class MmioTransport final : public VirtioTransport {
 public:
  MmioTransport(const VirtioMmioSlot& slot, volatile std::byte* registers)
      : slot_(slot), registers_(registers), interrupts_(new MmioInterrupts) {
    interrupts_->registers = registers;
  }

  std::uint32_t device_type() const override { return reg(VIRTIO_MMIO_DEVICE_ID); }
  std::string where() const override { return fmt::format("mmio {:#x}", slot_.base.value); }
  std::uint8_t status() override { return static_cast<std::uint8_t>(reg(VIRTIO_MMIO_STATUS)); }
  void set_status(std::uint8_t status) override { reg(VIRTIO_MMIO_STATUS) = status; }

  std::uint64_t device_features() override {
    reg(VIRTIO_MMIO_DEVICE_FEATURES_SEL) = 0;
    std::uint64_t low = reg(VIRTIO_MMIO_DEVICE_FEATURES);
    reg(VIRTIO_MMIO_DEVICE_FEATURES_SEL) = 1;
    return std::uint64_t{reg(VIRTIO_MMIO_DEVICE_FEATURES)} << 32 | low;
  }
  void set_driver_features(std::uint64_t features) override {
    reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL) = 0;
    reg(VIRTIO_MMIO_DRIVER_FEATURES) = static_cast<std::uint32_t>(features);
    reg(VIRTIO_MMIO_DRIVER_FEATURES_SEL) = 1;
    reg(VIRTIO_MMIO_DRIVER_FEATURES) = static_cast<std::uint32_t>(features >> 32);
  }

  std::uint32_t config_generation() override { return reg(VIRTIO_MMIO_CONFIG_GENERATION); }
  std::uint8_t config8(std::size_t offset) override { return *reinterpret_cast<volatile std::uint8_t*>(config(offset)); }
  std::uint16_t config16(std::size_t offset) override { return *reinterpret_cast<volatile std::uint16_t*>(config(offset)); }
  std::uint32_t config32(std::size_t offset) override { return *reinterpret_cast<volatile std::uint32_t*>(config(offset)); }

  std::uint16_t queue_size_max(std::uint16_t index) override {
    reg(VIRTIO_MMIO_QUEUE_SEL) = index;
    std::uint32_t size = reg(VIRTIO_MMIO_QUEUE_NUM_MAX);
    return static_cast<std::uint16_t>(std::min(size, std::uint32_t{32768}));
  }
  Result<> enable_queue(std::uint16_t index, const VirtQueue& queue, const InterruptSink& sink) override;
  Result<> enable_config_interrupt(const InterruptSink& sink) override;
  void notify(std::uint16_t index) override { reg(VIRTIO_MMIO_QUEUE_NOTIFY) = index; }

 private:
  volatile std::uint32_t& reg(std::size_t offset) const {
    return *reinterpret_cast<volatile std::uint32_t*>(registers_ + offset);
  }
  volatile std::byte* config(std::size_t offset) const { return registers_ + VIRTIO_MMIO_CONFIG + offset; }
  void write64(std::size_t low_offset, PhysAddr value) {
    reg(low_offset) = static_cast<std::uint32_t>(value.value);
    reg(low_offset + 4) = static_cast<std::uint32_t>(value.value >> 32);
  }
  Result<> route();

  VirtioMmioSlot slot_;
  volatile std::byte* registers_;
  MmioInterrupts* interrupts_;  // outlives the transport: vectors are never given back
  bool routed_ = false;
};

Result<> MmioTransport::route() {
  if (routed_) return {};
  Vector vector = TRY(register_interrupt(&MmioInterrupts::on_interrupt, interrupts_));
  // Edge: the line falls with our acknowledgement and rises with the next event, and hypervisors that only pulse it are
  // served too. An event between reading and acknowledging is not lost, since the queues are looked at afterwards.
  Result<> routed = route_gsi(slot_.gsi, vector, 0, Trigger::kEdge, Polarity::kHigh);
  if (!routed) return std::move(routed).error().with_context(fmt::format("{}: interrupt {}", where(), slot_.gsi));
  routed_ = true;
  return {};
}

Result<> MmioTransport::enable_config_interrupt(const InterruptSink& sink) {
  interrupts_->config = sink;
  return route();
}

Result<> MmioTransport::enable_queue(std::uint16_t index, const VirtQueue& queue, const InterruptSink& sink) {
  if (sink.handler != nullptr) {
    std::size_t count = interrupts_->queue_count.load(std::memory_order_relaxed);
    if (count == MmioInterrupts::kMaxSinks) return Error(Code::kBusy, where() + ": too many queues with interrupts");
    interrupts_->queues[count] = sink;
    interrupts_->queue_count.store(count + 1, std::memory_order_release);
    TRY(route());
  }
  VirtQueue::Addresses at = queue.addresses();
  reg(VIRTIO_MMIO_QUEUE_SEL) = index;
  if (reg(VIRTIO_MMIO_QUEUE_READY) != 0) return Error(Code::kBusy, where() + ": the queue is in use already");
  reg(VIRTIO_MMIO_QUEUE_NUM) = queue.size();
  write64(VIRTIO_MMIO_QUEUE_DESC_LOW, at.descriptors);
  write64(VIRTIO_MMIO_QUEUE_AVAIL_LOW, at.available);
  write64(VIRTIO_MMIO_QUEUE_USED_LOW, at.used);
  reg(VIRTIO_MMIO_QUEUE_READY) = 1;
  return {};
}

}  // namespace

Result<std::unique_ptr<VirtioTransport>> open_virtio_mmio(const VirtioMmioSlot& slot) {
  auto registers = static_cast<volatile std::byte*>(TRY(map_mmio(slot.base, slot.size_bytes)));
  auto reg = [&](std::size_t offset) { return *reinterpret_cast<volatile std::uint32_t*>(registers + offset); };
  if (reg(VIRTIO_MMIO_MAGIC_VALUE) != kMagic || reg(VIRTIO_MMIO_DEVICE_ID) == 0) return nullptr;
  if (reg(VIRTIO_MMIO_VERSION) != 2) {
    return Error(Code::kUnsupported, fmt::format("mmio {:#x}: a legacy virtio device; start QEMU with "
                                                 "-global virtio-mmio.force-legacy=false", slot.base.value));
  }
  return std::make_unique<MmioTransport>(slot, registers);
}

}  // namespace kelda::kernel
