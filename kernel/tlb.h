// Stale translations of demand-zero memory, without interrupts to other CPUs. Private to kernel/.
//
// A CPU may hold a translation of a page for as long as it does not flush. So a frame whose page was unmapped goes to
// limbo: it stays in the page's entry (not present, marked with the tag of its unmapping) until every CPU that
// runs has passed that generation. A CPU passes when it makes a system call, takes an interrupt, sleeps or calls
// flush_all_local(); one that sleeps counts as passed and flushes before it does anything else.
//
// Invariants
//  T1. A frame leaves limbo only after every running CPU has flushed since it was unmapped.
//  T2. Until then the address is of no use: before it is mapped again, and before a discard returns, limbo there is
//      emptied, by interrupt where needed. Else a CPU with the old translation would write, without a fault, to a frame
//      that nobody else sees.
//  T3. tlb_seen of a CPU is stored after the flush; `halted` is cleared before the generation is read (both
//  sequentially
//      consistent), so whoever sees "halted" after raising the generation knows that the CPU will see it on waking.
#pragma once

#include <atomic>
#include <cstdint>

#include "kernel/cpu_state.h"
#include "kernel/machine.h"

namespace kelda::kernel {

extern std::atomic<std::uint64_t> g_tlb_generation;

// Flushes this CPU if anything was unmapped since its last flush. Interrupts off, or from one place in the code only.
inline void tlb_pass() {
  CpuState& cpu = this_cpu();
  std::uint64_t generation = g_tlb_generation.load(std::memory_order_seq_cst);
  if (cpu.tlb_seen.load(std::memory_order_relaxed) == generation) return;
  write_cr3(read_cr3());
  cpu.tlb_seen.store(generation, std::memory_order_seq_cst);
}

// Starts a new generation for what the caller has just unmapped, and returns it. This CPU passes it at once: by a
// flush, or without one when the caller has `invalidated` each page here (with interrupts off since before the first).
std::uint64_t tlb_new_generation(bool invalidated = false);
// Has every running CPU passed `generation`?
bool tlb_passed(std::uint64_t generation);
// Is this CPU the only one that runs? Then a new generation passes at once.
bool tlb_others_sleep();
// Makes every CPU pass it, by interrupt where needed, and waits. For when memory is short and for moves.
void tlb_force(std::uint64_t generation);

// demand.cc
std::uint64_t limbo_page_count();

}  // namespace kelda::kernel
