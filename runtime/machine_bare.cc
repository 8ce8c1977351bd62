#include "kernel/acpi.h"
#include "kernel/cpu.h"
#include "kernel/host_file.h"
#include "kernel/memory.h"
#include "kernel/time.h"
#include "runtime/machine_platform.h"

#include <cpuid.h>

#include <atomic>
#include <cstring>
#include <span>
#include <utility>

namespace kelda::runtime {

namespace {

// Sees on core 0's loop what the interrupt could only note.
class PowerButton final : public Poller {
 public:
  explicit PowerButton(Event& event) : event_(event) {}
  std::size_t poll() override {
    if (!pressed_.exchange(false, std::memory_order_acquire)) return 0;
    event_.set();
    return 1;
  }
  bool prepare_sleep() override { return !pressed_.load(std::memory_order_acquire); }
  static void on_interrupt(void* self) {
    static_cast<PowerButton*>(self)->pressed_.store(true, std::memory_order_release);
    kernel::wake_cpu(0);
  }

 private:
  Event& event_;
  std::atomic<bool> pressed_{false};
};

std::string hypervisor_name() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  __cpuid(1, eax, ebx, ecx, edx);
  if ((ecx & (1u << 31)) == 0) return "hardware";
  __cpuid(0x40000000, eax, ebx, ecx, edx);
  char name[13] = {};
  std::memcpy(name, &ebx, 4);
  std::memcpy(name + 4, &ecx, 4);
  std::memcpy(name + 8, &edx, 4);
  if (std::strcmp(name, "KVMKVMKVM") == 0) return "KVM";
  if (std::strcmp(name, "TCGTCGTCGTCG") == 0) return "TCG";
  return name;
}

}  // namespace

MachineInfo bare_machine_info() {
  MachineInfo info;
  info.bare = true;
  info.platform = "bare on " + hypervisor_name();
  info.cpu_count = kernel::cpu_count();
  const auto memory = kernel::memory_stats();
  info.memory_bytes = memory.total_page_count * kPageBytes;
  info.available_bytes = memory.free_page_count * kPageBytes;
  info.resident_bytes = info.memory_bytes - info.available_bytes;
  info.since_start_us = kernel::monotonic_ns() / 1000;
  return info;
}

void bare_set_on_stop_request(Event& event) {
  static PowerButton button(event);
  Core::current().add_poller(button);
  kernel::set_power_button_handler(&PowerButton::on_interrupt, &button);
}

Result<std::optional<std::string>> bare_host_file(const std::string& name, std::size_t limit_bytes) {
  std::string text(limit_bytes, 0);
  const auto size = kernel::read_host_file(name, std::as_writable_bytes(std::span(text)));
  if (!size) return std::optional<std::string>();
  if (*size > limit_bytes) {
    return Error(Code::kInvalidArgument, "the host's file " + name + " has " + std::to_string(*size) + " bytes, more than " +
                                             std::to_string(limit_bytes) + ": hand over a shorter one");
  }
  text.resize(*size);
  return std::optional<std::string>(std::move(text));
}

}  // namespace kelda::runtime
