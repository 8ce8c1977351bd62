#include "sim/minimise.h"

#include <cmath>

namespace kelda::sim {

namespace {

constexpr double kSecondsStep = 0.05;

class Minimiser {
 public:
  Minimiser(const Config& config, const Overrides& given, std::uint32_t most_runs,
            FunctionRef<bool(const Overrides&)> fails)
      : most_runs_(most_runs), fails_(fails) {
    best_.overrides = given;
    best_.overrides.seconds = static_cast<double>(config.duration_ns) / 1e9;
    best_.overrides.cores = config.cores;
    best_.overrides.clients = config.clients;
    best_.overrides.transactors = config.transactors;
    best_.overrides.faults = config.faults;
  }

  Reproduction run(const Report& failed) {
    // The simulated clock starts at one second.
    const double failed_at_s = static_cast<double>(failed.failed_at_ns) / 1e9 - 1;
    if (failed_at_s > 0) try_seconds(failed_at_s + kSecondsStep);
    drop_faults();
    fewer(&Overrides::clients);
    fewer(&Overrides::transactors);
    fewer(&Overrides::cores);
    while (try_seconds(*best_.overrides.seconds / 2)) {
    }
    drop_faults();
    return best_;
  }

 private:
  bool attempt(const Overrides& smaller) {
    if (best_.runs >= most_runs_) return false;
    ++best_.runs;
    if (!fails_(smaller)) return false;
    best_.overrides = smaller;
    return true;
  }

  bool try_seconds(double seconds) {
    Overrides smaller = best_.overrides;
    smaller.seconds = std::ceil(seconds / kSecondsStep) * kSecondsStep;
    return *smaller.seconds < *best_.overrides.seconds && attempt(smaller);
  }

  void fewer(std::optional<std::uint32_t> Overrides::*count) {
    for (std::uint32_t n = 1; n < *(best_.overrides.*count); n *= 2) {
      Overrides smaller = best_.overrides;
      smaller.*count = n;
      if (attempt(smaller)) return;
    }
  }

  void drop_faults() {
    for (const FaultKind kind : best_.overrides.faults->kinds()) {
      Overrides smaller = best_.overrides;
      smaller.faults->remove(kind);
      (void)attempt(smaller);
    }
  }

  const std::uint32_t most_runs_;
  FunctionRef<bool(const Overrides&)> fails_;
  Reproduction best_;
};

}  // namespace

Reproduction minimise(const Config& config, const Overrides& given, const Report& failed, std::uint32_t most_runs,
                      FunctionRef<bool(const Overrides&)> fails) {
  return Minimiser(config, given, most_runs, fails).run(failed);
}

}  // namespace kelda::sim
