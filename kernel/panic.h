// Private side of panic (kernel.h): from traps, and how other CPUs are stopped.
#pragma once

#include "kernel/traps.h"

namespace kelda::kernel {

// `address` is what a page fault was about; 0 otherwise.
[[noreturn]] void panic_in_trap(const char* what, const TrapFrame& frame, std::uint64_t address);

// Non-maskable interrupt: publishes this CPU's registers and halts it for good; reports if no other CPU does.
[[noreturn]] void stop_for_panic(const TrapFrame& frame);

// The panic of a system call: its message has a number.
[[noreturn]] void panic_with_number(const char* message, std::int64_t number);

}  // namespace kelda::kernel
