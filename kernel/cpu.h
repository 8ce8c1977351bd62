// CPUs: how many, which one, and how they sleep.
//
// Contract. CPU 0 runs main(). Every other CPU idles in hlt until the C library starts a thread (clone3 in the shim),
// which then owns the CPU until it ends: threads never migrate, there is at most one a CPU and no preemption. So a
// thread is a CPU, and thread_local is per CPU.
//
// Invariants
//  C1. A wake_cpu(i) or an interrupt on CPU i that comes after i's last return from halt_until_interrupt_or() makes the
//      next call return at once: no wake-up is lost, whenever it comes.
//  C2. wake_cpu() sends an interrupt only to a CPU that is halted or about to be.
#pragma once

#include <cstdint>

namespace kelda::kernel {

inline constexpr std::uint32_t kMaxCpus = 64;
// "No deadline" for halt_until_interrupt_or().
inline constexpr std::uint64_t kNoDeadline = ~std::uint64_t{0};

// CPUs that the machine has and that may run threads (at most kMaxCpus).
std::uint32_t cpu_count();
// Of the calling CPU; 0 <= index < cpu_count().
std::uint32_t this_cpu_index();

// Makes CPU i leave halt_until_interrupt_or(), or not enter it the next time. Cheap and harmless when it is awake.
// From any CPU and from interrupt handlers.
void wake_cpu(std::uint32_t cpu);

// Sleeps (hlt) until an interrupt, a wake_cpu() or monotonic_ns() >= deadline_ns. May return earlier for no reason.
// Call with interrupts enabled. A deadline that has passed returns at once.
void halt_until_interrupt_or(std::uint64_t deadline_ns);

// Is CPU i in hlt now? For statistics and tests: the answer may be old when it arrives.
bool cpu_is_halted(std::uint32_t cpu);
// Time that CPU i has spent in hlt since boot.
std::uint64_t cpu_halted_ns(std::uint32_t cpu);

// Masks interrupts on this CPU for the life of the object; nests.
class InterruptsOff {
 public:
  InterruptsOff() { asm volatile("pushfq; popq %0; cli" : "=r"(flags_)::"memory"); }
  ~InterruptsOff() {
    if (flags_ & kInterruptFlag) asm volatile("sti" ::: "memory");
  }
  InterruptsOff(const InterruptsOff&) = delete;
  InterruptsOff& operator=(const InterruptsOff&) = delete;

 private:
  static constexpr std::uint64_t kInterruptFlag = 1u << 9;
  std::uint64_t flags_;
};

}  // namespace kelda::kernel
