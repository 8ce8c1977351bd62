// kelda_bench: Google Benchmark over the layers, hosted and bare. Takes the flags of Google Benchmark.
#include "bench/suites.h"
#include "runtime/machine.h"
#include "runtime/sync.h"

namespace kelda::bench {
namespace {

constexpr std::uint32_t kCores = 2;  // the second one is there to be woken

void run_selected(runtime::Runtime& rt) {
  const runtime::MachineInfo machine = runtime::machine_info();
  benchmark::AddCustomContext("platform", machine.platform);
  benchmark::AddCustomContext("cpus", std::to_string(machine.cpu_count));
  add_runtime_benchmarks(rt);
  add_pool_benchmarks();
  add_map_benchmarks();
  add_tree_benchmarks();
  add_log_benchmarks();
  add_engine_benchmarks();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::ClearRegisteredBenchmarks();  // and with them the fixtures
}

int run(runtime::Runtime& rt) {
  // A stack of its own: the flag for the filter goes through the standard library's regular expressions.
  runtime::Completion done;
  done.add();
  must(runtime::Core::current().spawn(
           [&] {
             run_selected(rt);
             done.done();
           },
           {.name = "bench", .stack_bytes = 1 << 20}),
       "a fiber for the benchmarks");
  done.wait();
  return 0;
}

}  // namespace
}  // namespace kelda::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  auto code = kelda::runtime::Runtime::run({.core_count = kelda::bench::kCores}, kelda::bench::run);
  if (!code) std::fprintf(stderr, "kelda_bench: %s\n", code.error().to_string().c_str());
  return code ? *code : 1;
}
