// Walking a stack that may be damaged. Private to kernel/.
#pragma once

#include <cstdint>

namespace kelda::kernel {

enum class FrameKind : std::uint8_t {
  kInstruction,  // where it stopped
  kReturn,       // a return address from the chain of frame pointers
  kGuess,        // a word of the stack that looks like one
};

// Calls visit(address, kind) for the call chain from an instruction pointer, stack pointer and frame pointer, inner
// first. Follows frame pointers; where they end (the C library keeps none) it goes on with guesses. Never faults; at
// most kMaxFrames calls.
inline constexpr int kMaxFrames = 48;
void walk_stack(std::uint64_t rip, std::uint64_t rsp, std::uint64_t rbp,
                void (*visit)(std::uint64_t address, FrameKind kind));

}  // namespace kelda::kernel
