#include "kernel/virtio_pci.h"

#include <fmt/format.h>
#define VIRTIO_PCI_NO_LEGACY
#include <linux/virtio_pci.h>

namespace kelda::kernel {
namespace {

constexpr std::uint16_t kVirtioVendor = 0x1af4;
constexpr std::uint16_t kModernIdBase = 0x1040;
static_assert(sizeof(virtio_pci_common_cfg) == 56);
static_assert(offsetof(virtio_pci_common_cfg, queue_desc_lo) == 32);

// Transitional devices (0x1000-0x103f) tell their type in the subsystem id, modern ones in the device id.
std::uint32_t type_of(const PciFunction& function) {
  if (function.device >= kModernIdBase) return function.device - kModernIdBase;
  return pci_read16(function.where, pci::kSubsystem);
}

// The registers behind one vendor capability.
struct Structure {
  volatile std::byte* registers = nullptr;
  std::uint32_t size_bytes = 0;
  std::uint8_t capability = 0;
};

// The first capability of this type counts: the device lists them in order of preference (4.1.4.1).
Result<Structure> find_structure(const PciFunction& function, std::uint8_t type) {
  std::uint8_t at = 0;
  while (std::optional<std::uint8_t> next = function.find_capability(pci::kCapVendor, at)) {
    at = *next;
    if (pci_read8(function.where, at + VIRTIO_PCI_CAP_CFG_TYPE) != type) continue;
    std::uint8_t bar = pci_read8(function.where, at + VIRTIO_PCI_CAP_BAR);
    std::uint32_t offset = pci_read32(function.where, at + VIRTIO_PCI_CAP_OFFSET);
    std::uint32_t size = pci_read32(function.where, at + VIRTIO_PCI_CAP_LENGTH);
    if (bar > 5) continue;  // reserved values: to be skipped
    return Structure{TRY(function.map_bar(bar, offset, size)), size, at};
  }
  return Error(Code::kUnsupported, fmt::format("pci {}: virtio structure {} is missing; the device speaks only the legacy protocol",
                                               function.where.to_string(), type));
}

class PciTransport final : public VirtioTransport {
 public:
  PciTransport(const PciFunction& function, MsixTable msix, Structure common, Structure notify, std::uint32_t multiplier,
               Structure config)
      : function_(function), msix_(msix), notify_(notify), notify_multiplier_(multiplier), config_(config),
        common_(reinterpret_cast<volatile virtio_pci_common_cfg*>(common.registers)) {}

  std::uint32_t device_type() const override { return type_of(function_); }
  std::string where() const override { return "pci " + function_.where.to_string(); }
  std::uint8_t status() override { return common_->device_status; }
  void set_status(std::uint8_t status) override { common_->device_status = status; }

  std::uint64_t device_features() override {
    common_->device_feature_select = 0;
    std::uint64_t low = common_->device_feature;
    common_->device_feature_select = 1;
    return std::uint64_t{common_->device_feature} << 32 | low;
  }
  void set_driver_features(std::uint64_t features) override {
    common_->guest_feature_select = 0;
    common_->guest_feature = static_cast<std::uint32_t>(features);
    common_->guest_feature_select = 1;
    common_->guest_feature = static_cast<std::uint32_t>(features >> 32);
  }

  std::uint32_t config_generation() override { return common_->config_generation; }
  std::uint8_t config8(std::size_t offset) override { return config<std::uint8_t>(offset); }
  std::uint16_t config16(std::size_t offset) override { return config<std::uint16_t>(offset); }
  std::uint32_t config32(std::size_t offset) override { return config<std::uint32_t>(offset); }

  std::uint16_t queue_size_max(std::uint16_t index) override {
    if (index >= common_->num_queues) return 0;
    common_->queue_select = index;
    return common_->queue_size;
  }
  Result<> enable_queue(std::uint16_t index, const VirtQueue& queue, const InterruptSink& sink) override;
  Result<> enable_config_interrupt(const InterruptSink& sink) override;
  void notify(std::uint16_t index) override { *doorbells_[index] = index; }

 private:
  // A field the device does not have (an older device than the feature bits suggest) reads as 0.
  template <class T>
  T config(std::size_t offset) {
    if (offset + sizeof(T) > config_.size_bytes) return 0;
    return *reinterpret_cast<volatile T*>(config_.registers + offset);
  }
  // A free entry of the table, aimed at the sink.
  Result<std::uint16_t> message_for(const InterruptSink& sink);

  PciFunction function_;
  MsixTable msix_;
  Structure notify_;
  std::uint32_t notify_multiplier_;
  Structure config_;
  volatile virtio_pci_common_cfg* common_;
  std::vector<volatile std::uint16_t*> doorbells_;
  std::uint16_t next_message_ = 0;
  InterruptSink last_sink_;
  Vector last_vector_ = 0;
};

Result<std::uint16_t> PciTransport::message_for(const InterruptSink& sink) {
  if (sink.handler == nullptr) return std::uint16_t{VIRTIO_MSI_NO_VECTOR};
  // Vectors are scarce and the CPU is in the message: the queues of a device share theirs.
  if (sink.handler != last_sink_.handler || sink.argument != last_sink_.argument) {
    last_vector_ = TRY(register_interrupt(sink.handler, sink.argument));
    last_sink_ = sink;
  }
  Result<> set = msix_.set(next_message_, last_vector_, sink.cpu);
  if (!set) return std::move(set).error().with_context(where());
  return next_message_++;
}

Result<> PciTransport::enable_config_interrupt(const InterruptSink& sink) {
  std::uint16_t message = TRY(message_for(sink));
  common_->msix_config = message;
  if (common_->msix_config != message) return Error(Code::kIo, where() + ": the device refuses its configuration interrupt");
  return {};
}

Result<> PciTransport::enable_queue(std::uint16_t index, const VirtQueue& queue, const InterruptSink& sink) {
  std::uint16_t message = TRY(message_for(sink));
  VirtQueue::Addresses at = queue.addresses();
  common_->queue_select = index;
  common_->queue_size = queue.size();
  common_->queue_msix_vector = message;
  // The device answers "no vector" when it has no resources for the message (4.1.5.1.2).
  if (common_->queue_msix_vector != message) return Error(Code::kIo, where() + ": the device refuses a queue interrupt");
  common_->queue_desc_lo = static_cast<std::uint32_t>(at.descriptors.value);
  common_->queue_desc_hi = static_cast<std::uint32_t>(at.descriptors.value >> 32);
  common_->queue_avail_lo = static_cast<std::uint32_t>(at.available.value);
  common_->queue_avail_hi = static_cast<std::uint32_t>(at.available.value >> 32);
  common_->queue_used_lo = static_cast<std::uint32_t>(at.used.value);
  common_->queue_used_hi = static_cast<std::uint32_t>(at.used.value >> 32);
  std::uint64_t doorbell = std::uint64_t{common_->queue_notify_off} * notify_multiplier_;
  if (doorbell + 2 > notify_.size_bytes) return Error(Code::kIo, where() + ": the doorbell lies outside its structure");
  if (doorbells_.size() <= index) doorbells_.resize(index + 1);
  doorbells_[index] = reinterpret_cast<volatile std::uint16_t*>(notify_.registers + doorbell);
  common_->queue_enable = 1;
  return {};
}

}  // namespace

bool is_virtio(const PciFunction& function) {
  return function.vendor == kVirtioVendor && function.device >= 0x1000 && function.device <= 0x107f;
}

Result<std::unique_ptr<VirtioTransport>> open_virtio_pci(const PciFunction& function) {
  function.enable();
  Structure common = TRY(find_structure(function, VIRTIO_PCI_CAP_COMMON_CFG));
  Structure notify = TRY(find_structure(function, VIRTIO_PCI_CAP_NOTIFY_CFG));
  if (common.size_bytes < sizeof(virtio_pci_common_cfg)) {
    return Error(Code::kCorrupt, fmt::format("pci {}: the common structure is too short", function.where.to_string()));
  }
  std::uint32_t multiplier = pci_read32(function.where, notify.capability + VIRTIO_PCI_NOTIFY_CAP_MULT);
  // A device without configuration (an entropy source) has no such structure.
  Structure config;
  if (Result<Structure> found = find_structure(function, VIRTIO_PCI_CAP_DEVICE_CFG)) config = *found;
  MsixTable msix = TRY(MsixTable::enable(function));
  return std::make_unique<PciTransport>(function, msix, common, notify, multiplier, config);
}

}  // namespace kelda::kernel
