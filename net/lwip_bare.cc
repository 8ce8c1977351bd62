// The booted machine's network: lwIP over its first virtio-net device, on the core that calls start().
#include <cstdio>

#include "common/assert.h"
#include "kernel/kernel.h"
#include "kernel/virtio_devices.h"
#include "net/lwip_stack.h"
#include "net/stack.h"

namespace kelda::net {
namespace {

using kernel::VirtioNet;

class VirtioNic : public Nic {
 public:
  explicit VirtioNic(VirtioNet& device) : device_(device) {}
  ~VirtioNic() override { device_.disarm(); }

  Info info() const override {
    return {"virtio-net", device_.mac(), device_.fills_checksums(), device_.checks_checksums()};
  }
  std::size_t receive(Sink& sink, std::size_t limit) override {
    if (device_.broken()) report_broken();
    return device_.poll_rx([&](Bytes bytes, bool checksum_is_good) { sink.frame(bytes, checksum_is_good); }, limit);
  }
  bool send(std::span<const Bytes> pieces, PartialChecksum checksum) override {
    const kernel::PartialChecksum wanted{checksum.start, checksum.offset, checksum.wanted};
    return device_.send(pieces, wanted) == kernel::SendStatus::kQueued;
  }
  void flush() override { device_.kick_tx(); }
  bool arm_interrupt() override { return device_.arm(); }
  void disarm_interrupt() override { device_.disarm(); }

 private:
  void report_broken() {
    if (reported_) return;
    reported_ = true;
    std::fprintf(stderr, "network: the device at %s broke its protocol and is no longer used\n", device_.where().c_str());
  }

  VirtioNet& device_;
  bool reported_ = false;
};

Error no_device() {
  std::string text = "the machine has no virtio-net device: add one (QEMU: -netdev ... -device virtio-net-pci)";
  for (const std::string& problem : kernel::virtio_devices().problems) text += "; " + problem;
  return Error(Code::kUnsupported, std::move(text));
}

class BareStack : public Stack {
 public:
  Result<StackInfo> start(const StackOptions& options) override {
    KELDA_ASSERT(!stack_);
    auto& devices = kernel::virtio_devices().networks;
    if (devices.empty() && options.needs_device) return no_device();
    std::unique_ptr<Nic> nic;
    if (!devices.empty() && options.needs_device) nic = std::make_unique<VirtioNic>(*devices.front());
    stack_ = std::make_unique<lwip::Stack>(std::move(nic), options);
    auto info = stack_->bring_up(options);
    if (!info) stack_.reset();
    return info;
  }
  void stop() override { stack_.reset(); }

  Result<std::unique_ptr<Listener>> listen(Endpoint endpoint, std::uint32_t core_count) override {
    KELDA_ASSERT(stack_);
    return stack_->listen(endpoint, core_count);
  }
  Result<std::unique_ptr<Connection>> connect(Endpoint endpoint, runtime::TimeNs deadline_ns) override {
    KELDA_ASSERT(stack_);
    return stack_->connect(endpoint, deadline_ns);
  }

 private:
  std::unique_ptr<lwip::Stack> stack_;
};

}  // namespace

bool is_bare() { return kernel::running_bare(); }

Stack& bare_stack() {
  static BareStack stack;
  return stack;
}

}  // namespace kelda::net
