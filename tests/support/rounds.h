// How often a test repeats itself.
#pragma once

#include <cstdint>

#include "runtime/platform_bare.h"

namespace kelda {

// `hosted` rounds as a process, a fifth of them in the machine: what is the same text in both need not be repeated as often
// where it is emulated.
inline std::uint64_t test_rounds(std::uint64_t hosted) { return runtime::is_bare() ? hosted / 5 : hosted; }

}  // namespace kelda
