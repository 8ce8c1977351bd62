// Shared by the tests of the runtime: runs a body on as many cores as wanted, or as the machine has.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/backend.h"
#include "runtime/core.h"

namespace kelda::runtime {

// The machine has no more threads than CPUs, the calling one included.
inline std::uint32_t at_most_threads(std::uint32_t wanted) {
  return std::min(wanted, process_platform().max_threads());
}

inline int run(std::uint32_t cores, std::move_only_function<int(Runtime&)> main) {
  Result<int> value = Runtime::run({.core_count = at_most_threads(cores)}, std::move(main));
  EXPECT_TRUE(value.has_value()) << (value ? "" : value.error().to_string());
  return value ? *value : -1;
}

}  // namespace kelda::runtime
