#include "kernel/interrupts.h"

#include <atomic>

#include "kernel/cpu_state.h"
#include "kernel/spinlock.h"
#include "kernel/traps.h"

namespace kelda::kernel {

namespace {
struct Registration {
  std::atomic<InterruptHandler> handler{nullptr};
  void* context = nullptr;
};
constexpr std::size_t kVectors = kLastDeviceVector - kFirstDeviceVector + 1;
constinit Registration g_registrations[kVectors];
constinit std::size_t g_taken = 0;
constinit SpinLock g_lock;
}  // namespace

Result<Vector> register_interrupt(InterruptHandler handler, void* context) {
  LockGuard guard(g_lock);
  if (g_taken == kVectors) return Code::kBusy;
  Registration& registration = g_registrations[g_taken];
  registration.context = context;
  // Release: the handler finds its context.
  registration.handler.store(handler, std::memory_order_release);
  return static_cast<Vector>(kFirstDeviceVector + g_taken++);
}

bool call_interrupt_handler(std::uint8_t vector) {
  if (vector < kFirstDeviceVector || vector > kLastDeviceVector) return false;
  Registration& registration = g_registrations[vector - kFirstDeviceVector];
  InterruptHandler handler = registration.handler.load(std::memory_order_acquire);
  if (!handler) return false;
  handler(registration.context);
  return true;
}

MsiMessage msi_message(Vector vector, std::uint32_t cpu) {
  // Physical destination, fixed delivery, edge (SDM vol. 3, 11.11).
  return {0xfee0'0000 | std::uint64_t{g_cpus[cpu].apic_id & 0xff} << 12, vector};
}

}  // namespace kelda::kernel
