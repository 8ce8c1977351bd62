// Simulations beside each other, each in a process of its own: none sees what another has left, and one that aborts
// takes nobody along. Bare there are no processes: they run here, one after the other.
#pragma once

#include <cstdint>
#include <optional>

#include "common/function_ref.h"
#include "sim/simulation.h"

namespace kelda::tools {

struct SimJob {
  std::uint64_t seed = 1;
  sim::Overrides overrides;
};

// Takes jobs from `next` until it has none, at most `jobs` at a time, and hands over each report when it is there. An
// abort or a run without end is a failure, with what the report holds so far.
void run_sim_jobs(std::uint32_t jobs, FunctionRef<std::optional<SimJob>()> next,
                  FunctionRef<void(const SimJob&, const sim::Report&)> done);

// The hosted form, by fork().
void run_sim_processes(std::uint32_t jobs, FunctionRef<std::optional<SimJob>()> next,
                       FunctionRef<void(const SimJob&, const sim::Report&)> done);

}  // namespace kelda::tools
