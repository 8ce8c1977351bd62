#include "sim/simulation.h"

#include "runtime/core_sim.h"
#include "sim/director.h"

namespace kelda::sim {

void run_simulation(const Config& config, Report& report, GiveUp give_up) {
  const runtime::TimeNs started_ns = runtime::now_ns();
  runtime::SimOptions options;
  options.seed = config.seed;
  options.core_count = config.cores;
  options.stray_unparks = config.faults.has(FaultKind::kStray);
  options.max_steps = 2'000'000'000;
  World world(config, report);
  runtime::SimReport runtime_report;
  const auto ran = runtime::run_simulated(
      options,
      [&](runtime::Runtime& runtime) {
        Director(world, runtime, give_up).run();
        return 0;
      },
      &runtime_report);
  if (!ran && !report.failed) {
    report.failed = true;
    assign(report.kind, "stuck");
    assign(report.failure, ran.error().to_string());
  }
  report.trace_hash = Prng(report.trace_hash ^ runtime_report.trace_hash).next();
  report.steps = runtime_report.steps;
  report.virtual_ns = runtime_report.virtual_ns;
  report.real_ns = runtime::now_ns() - started_ns;
  report.finished = true;
}

}  // namespace kelda::sim
