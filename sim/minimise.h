// Looks for a smaller history that fails in the same way.
#pragma once

#include "common/function_ref.h"
#include "sim/config.h"
#include "sim/report.h"

namespace kelda::sim {

struct Reproduction {
  Overrides overrides;
  std::uint32_t runs = 0;
};

// `fails` runs the same seed again and says whether it fails with the same kind of violation. Less time, fewer clients
// and transactors, fewer cores and fewer kinds of faults are tried, one after the other, in at most `most_runs` runs.
Reproduction minimise(const Config& config, const Overrides& given, const Report& failed, std::uint32_t most_runs,
                      FunctionRef<bool(const Overrides&)> fails);

}  // namespace kelda::sim
