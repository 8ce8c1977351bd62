// Walking a stack that may be damaged. Private to kernel/.
#pragma once

#include <cstdint>

namespace kelda::kernel {

// Calls visit(address, certain) for the call chain from an instruction pointer, stack pointer and frame pointer, inner
// first. Follows frame pointers; where they end (the C library keeps none) it goes on with stack words that look like
// return addresses, marked not certain. Never faults; at most kMaxFrames calls.
inline constexpr int kMaxFrames = 48;
void walk_stack(std::uint64_t rip, std::uint64_t rsp, std::uint64_t rbp, void (*visit)(std::uint64_t address, bool certain));

}  // namespace kelda::kernel
