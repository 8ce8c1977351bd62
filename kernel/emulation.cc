#include "kernel/emulation.h"

#include <atomic>

#include "kernel/internal.h"
#include "kernel/kernel.h"
#include "kernel/machine.h"

namespace kelda::kernel {

namespace {

constexpr std::uint32_t kHypervisorLeaf = 0x4000'0000;

constinit bool g_emulated = false;
constinit bool g_may_miss_devices = false;

// The port that firmware writes its progress to: reading it has no effect on any machine, also where nothing answers.
void fence_by_port() {
  constexpr std::uint16_t kUnusedPort = 0x80;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  in8(kUnusedPort);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

}  // namespace

void init_emulation() {
  constexpr std::uint32_t kHypervisorBit = 1u << 31;
  const bool says_hypervisor = cpuid(1).ecx & kHypervisorBit;
  const CpuidResult leaf = cpuid(kHypervisorLeaf);
  // "TCGTCGTCGTCG": QEMU without hardware virtualisation.
  g_emulated = says_hypervisor && leaf.ebx == 0x5447'4354 && leaf.ecx == 0x4354'4743 && leaf.edx == 0x4743'5447;
  const bool has_name = says_hypervisor && leaf.ebx != 0;
  g_may_miss_devices = g_emulated || !has_name;
}

bool running_emulated() {
  return g_emulated;
}

bool may_miss_devices() {
  return g_may_miss_devices;
}

DeviceFence device_fence() {
  return g_may_miss_devices ? fence_by_port : nullptr;
}

}  // namespace kelda::kernel
