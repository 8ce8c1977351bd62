// Starting the other CPUs: INIT and start-up interrupts (Intel SDM vol. 3, 8.4), without waiting for them. They arrive
// while the program already runs; a thread that needs one waits for it (shim_threads.cc).
#include <atomic>
#include <cstring>

#include "kernel/apic.h"
#include "kernel/boot_constants.h"
#include "kernel/cpu_state.h"
#include "kernel/internal.h"
#include "kernel/kernel.h"
#include "kernel/machine.h"
#include "kernel/machine_info.h"
#include "kernel/shim_threads.h"
#include "kernel/tables.h"

extern "C" {
extern const char kelda_trampoline_begin[], kelda_trampoline_end[];
extern std::uint32_t kelda_ap_ticket;
// By ticket, the order of arrival; not by CPU index.
std::uint64_t kelda_ap_stacks[kelda::kernel::kMaxCpus] = {};
}

namespace kelda::kernel {

namespace {

std::uint32_t index_of(std::uint32_t apic_id) {
  for (std::uint32_t i = 1; i < g_cpu_count; ++i) {
    if (g_cpus[i].apic_id == apic_id) return i;
  }
  return 0;
}

// CPU 0 is the one that booted, whatever the firmware's order.
void number_cpus() {
  g_cpus[0].apic_id = apic_id_of_this_cpu();
  g_cpu_count = 1;
  for (std::uint32_t i = 0; i < g_machine.cpu_count; ++i) {
    if (g_machine.apic_ids[i] != g_cpus[0].apic_id && g_cpu_count < kMaxCpus)
      g_cpus[g_cpu_count++].apic_id = g_machine.apic_ids[i];
  }
}

}  // namespace

extern "C" void kelda_ap_start(std::uint32_t ticket) {
  enable_apic_this_cpu();
  std::uint32_t index = index_of(apic_id_of_this_cpu());
  if (index == 0) halt_forever();  // not one that was asked to start
  g_cpus[index].idle_stack_top = kelda_ap_stacks[ticket];
  set_up_this_cpu(index);
  init_timer_this_cpu();
  g_cpus[index].started.store(true, std::memory_order_release);
  idle_this_cpu();
}

void start_other_cpus() {
  number_cpus();
  if (g_cpu_count == 1) return;
  for (std::uint32_t ticket = 0; ticket + 1 < g_cpu_count; ++ticket)
    kelda_ap_stacks[ticket] = make_kernel_stack(kKernelStackBytes);
  std::memcpy(reinterpret_cast<void*>(TRAMPOLINE_ADDRESS), kelda_trampoline_begin,
              static_cast<std::size_t>(kelda_trampoline_end - kelda_trampoline_begin));
  make_executable(TRAMPOLINE_ADDRESS);
  // One by one: a machine may have more CPUs than are used, and those must stay asleep.
  for (std::uint32_t i = 1; i < g_cpu_count; ++i) {
    send_init(g_cpus[i].apic_id);
    send_startup(g_cpus[i].apic_id, TRAMPOLINE_ADDRESS / kPageBytes);
  }
}

void nudge_cpu(std::uint32_t index) {
  send_startup(g_cpus[index].apic_id, TRAMPOLINE_ADDRESS / kPageBytes);
}

}  // namespace kelda::kernel
