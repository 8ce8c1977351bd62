#include "kernel/tlb.h"

#include "kernel/apic.h"
#include "kernel/machine.h"
#include "kernel/paging.h"

namespace kelda::kernel {

constinit std::atomic<std::uint64_t> g_tlb_generation{0};

namespace {
bool has_passed(const CpuState& cpu, std::uint64_t generation) {
  return cpu.tlb_seen.load(std::memory_order_seq_cst) >= generation || cpu.halted.load(std::memory_order_seq_cst) ||
         !cpu.started.load(std::memory_order_acquire);
}
}  // namespace

std::uint64_t tlb_new_generation(bool invalidated) {
  InterruptsOff off;
  std::uint64_t generation = g_tlb_generation.fetch_add(1, std::memory_order_seq_cst) + 1;
  std::atomic<std::uint64_t>& seen = this_cpu().tlb_seen;
  // Only if nothing older is pending, and nobody has started another generation meanwhile.
  if (invalidated && seen.load(std::memory_order_relaxed) == generation - 1) {
    seen.store(generation, std::memory_order_seq_cst);
  } else {
    tlb_pass();
  }
  return generation;
}

bool tlb_passed(std::uint64_t generation) {
  for (std::uint32_t i = 0; i < g_cpu_count; ++i) {
    if (!has_passed(g_cpus[i], generation)) return false;
  }
  return true;
}

bool tlb_others_sleep() {
  constexpr std::uint64_t kFuture = ~std::uint64_t{0};
  for (std::uint32_t i = 0; i < g_cpu_count; ++i) {
    if (i != this_cpu_index() && !has_passed(g_cpus[i], kFuture)) return false;
  }
  return true;
}

void tlb_force(std::uint64_t generation) {
  InterruptsOff off;  // so that the program does not move while it waits; other CPUs may force at the same time
  for (std::uint32_t i = 0; i < g_cpu_count; ++i) {
    if (!has_passed(g_cpus[i], generation)) send_interrupt(g_cpus[i].apic_id, kVectorFlush);
  }
  while (!tlb_passed(generation)) {
    tlb_pass();  // another CPU may be waiting for this one
    pause();
  }
}

std::uint64_t begin_unmap_epoch() {
  return tlb_new_generation();
}
bool unmap_epoch_passed(std::uint64_t epoch) {
  return tlb_passed(epoch);
}
void force_unmap_epoch(std::uint64_t epoch) {
  tlb_force(epoch);
}

void pass_unmap_epoch() {
  // An interrupt in between would pass by itself; off, so that tlb_seen is not stored out of order.
  if (this_cpu().tlb_seen.load(std::memory_order_relaxed) == g_tlb_generation.load(std::memory_order_seq_cst)) return;
  InterruptsOff off;
  tlb_pass();
}

void flush_all_local() {
  InterruptsOff off;
  std::uint64_t generation = g_tlb_generation.load(std::memory_order_seq_cst);
  write_cr3(read_cr3());
  this_cpu().tlb_seen.store(generation, std::memory_order_seq_cst);
}

}  // namespace kelda::kernel
