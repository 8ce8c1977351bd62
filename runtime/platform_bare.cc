// The booted machine: a core is a CPU that sleeps in hlt.
//
// No wake-up is lost: whatever interrupt or wake_cpu() comes after a CPU's last halt makes its next halt return at once
// (kernel/cpu.h, C1). So a poller whose prepare_sleep() armed an interrupt needs no lock against it, and a message
// posted after the core looked at its inbox, with `asleep` set, ends the halt that follows.
#include "runtime/platform_bare.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "kernel/cpu.h"
#include "kernel/emulation.h"
#include "kernel/kernel.h"
#include "kernel/paging.h"
#include "kernel/random.h"
#include "kernel/time.h"
#include "runtime/fiber.h"

namespace kelda::runtime {

namespace {

static_assert(kNever == kernel::kNoDeadline);

// The core of each CPU, for panics; cores are never freed (core_registry.cc).
std::array<std::atomic<Core*>, kernel::kMaxCpus> cores_of_cpus;

// In the panic report: every CPU stands still, in any state.
const char* describe_cpu(std::uint32_t cpu) {
  Core* core = cpu < cores_of_cpus.size() ? cores_of_cpus[cpu].load(std::memory_order_relaxed) : nullptr;
  const char* name = core != nullptr ? core->current_fiber().name : "";
  return *name != 0 ? name : nullptr;  // a main context has none
}

class BareBackend final : public CoreBackend {
 public:
  void attached(Core& core) override { cores_of_cpus[cpu_].store(&core, std::memory_order_relaxed); }
  // Devices are pollers of their own. Each turn forgets what was unmapped elsewhere, so that frames can be reused.
  std::size_t poll(bool) override {
    kernel::pass_unmap_epoch();
    return 0;
  }
  void sleep(TimeNs deadline_ns) override {
    // An interrupt that never comes is not waited for without a bound (kernel/emulation.h).
    if (kernel::may_miss_devices()) deadline_ns = std::min(deadline_ns, kernel::monotonic_ns() + kernel::kIdleLookNs);
    kernel::halt_until_interrupt_or(deadline_ns);
  }
  void wake() override { kernel::wake_cpu(cpu_); }
  bool quiesce() override { return true; }

 private:
  const std::uint32_t cpu_ = kernel::this_cpu_index();  // made on the core's own thread, which is one CPU for ever
};

class BarePlatform final : public Platform {
 public:
  Result<std::unique_ptr<CoreBackend>> make_backend() override { return std::make_unique<BareBackend>(); }
  TimeNs now_ns() override { return kernel::monotonic_ns(); }
  std::int64_t wall_clock_us() override { return kernel::wall_clock_ns() / 1000; }
  void random_bytes(MutableBytes out) override { kernel::random_fill(out); }
  std::uint32_t cpu_count() override { return kernel::cpu_count(); }
  std::uint32_t max_threads() override { return kernel::cpu_count(); }
};

}  // namespace

bool is_bare() { return kernel::running_bare(); }

Platform& bare_platform() {
  static BarePlatform platform = [] {
    kernel::set_cpu_describer(&describe_cpu);
    return BarePlatform();
  }();
  return platform;
}

}  // namespace kelda::runtime
