// The benchmarks, by layer. Each function registers its own; main.cc runs what the command line selects.
//
// Contract: benchmarks run one after the other in a fiber of core 0, so that what waits can wait. Fixtures are made at
// their first use, so that a filter costs nothing, and belong to the registered benchmarks: main.cc forgets these while
// the runtime still runs. Nothing here needs a disk: devices are simulated, in memory, and answer at once.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>

#include "common/result.h"
#include "runtime/core.h"

namespace kelda::bench {

void add_runtime_benchmarks(runtime::Runtime& rt);  // at least two cores
void add_pool_benchmarks();
void add_map_benchmarks();
void add_tree_benchmarks();
void add_log_benchmarks();
void add_engine_benchmarks();

// What a fixture cannot do without.
template <class T>
T must(Result<T> result, const char* what) {
  if (!result) {
    std::fprintf(stderr, "kelda_bench: %s: %s\n", what, result.error().to_string().c_str());
    std::abort();
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

// A fixture that is made at its first use and shared by the benchmarks that hold a copy.
template <class T>
class Shared {
 public:
  explicit Shared(std::function<std::unique_ptr<T>()> make) : state_(std::make_shared<State>(State{std::move(make), {}})) {}
  T& get() const {
    if (!state_->value) state_->value = state_->make();
    return *state_->value;
  }

 private:
  struct State {
    std::function<std::unique_ptr<T>()> make;
    std::unique_ptr<T> value;
  };
  std::shared_ptr<State> state_;
};

}  // namespace kelda::bench
