// `kelda sim`: one seed, or many beside each other; a failure is made smaller and explained.
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "runtime/core.h"
#include "runtime/machine.h"
#include "sim/minimise.h"
#include "tools/commands.h"
#include "tools/json.h"
#include "tools/sim_jobs.h"

namespace kelda::tools {

void run_sim_jobs(std::uint32_t jobs, FunctionRef<std::optional<SimJob>()> next,
                  FunctionRef<void(const SimJob&, const sim::Report&)> done) {
  if (!runtime::machine_info().bare) return run_sim_processes(jobs, next, done);
  const auto report = std::make_unique<sim::Report>();
  while (const auto job = next()) {
    *report = {};
    sim::run_simulation(sim::make_config(job->seed, job->overrides), *report);
    done(*job, *report);
  }
}

namespace {

constexpr std::uint32_t kMinimiserRuns = 60;

struct Failure {
  SimJob job;
  std::unique_ptr<sim::Report> report, smallest_report;
  sim::Overrides smallest;
  std::uint32_t minimiser_runs = 0;
};

struct Totals {
  std::uint64_t seeds = 0, operations = 0, unknown = 0, refused = 0, starts = 0, faults = 0, audits = 0, unreadable = 0;
  std::uint64_t virtual_ns = 0, real_ns = 0;

  void add(const sim::Report& r) {
    ++seeds;
    operations += r.operations;
    unknown += r.unknown_outcomes;
    refused += r.refused;
    starts += r.starts;
    faults += r.faults;
    audits += r.audits;
    unreadable += r.note[0] != 0 ? 1 : 0;
    virtual_ns += r.virtual_ns;
    real_ns += r.real_ns;
  }
  double ratio() const { return real_ns == 0 ? 0 : static_cast<double>(virtual_ns) / static_cast<double>(real_ns); }
};

sim::Report run_one(const SimJob& job) {
  auto result = std::make_unique<sim::Report>();
  bool taken = false;
  run_sim_jobs(
      1, [&] { return std::exchange(taken, true) ? std::nullopt : std::optional(job); },
      [&](const SimJob&, const sim::Report& report) { *result = report; });
  return *result;
}

void make_smaller(Failure& failure, bool minimise) {
  failure.smallest = failure.job.overrides;
  failure.smallest_report = std::make_unique<sim::Report>(*failure.report);
  if (!minimise) return;
  std::fprintf(stderr, "seed %" PRIu64 " fails (%s); looking for a smaller history\n", failure.job.seed,
               failure.report->kind.data());
  const auto fails = [&](const sim::Overrides& overrides) {
    const auto report = std::make_unique<sim::Report>(run_one({failure.job.seed, overrides}));
    const bool same = report->failed && report->kind == failure.report->kind;
    if (same) *failure.smallest_report = *report;
    return same;
  };
  const auto config = sim::make_config(failure.job.seed, failure.job.overrides);
  const auto found = sim::minimise(config, failure.job.overrides, *failure.report, kMinimiserRuns, fails);
  failure.smallest = found.overrides;
  failure.minimiser_runs = found.runs;
}

template <class Visit>
void for_trace(const sim::Report& report, std::size_t most, Visit visit) {
  const std::uint64_t kept = std::min<std::uint64_t>({report.event_count, sim::Report::kLines, most});
  for (std::uint64_t i = report.event_count - kept; i < report.event_count; ++i)
    visit(report.lines[i % sim::Report::kLines].data());
}

void print_failure(const Failure& failure, std::size_t trace_lines) {
  const sim::Report& report = *failure.smallest_report;
  std::printf("\nFAILURE seed %" PRIu64 ": %s\n%s\n", failure.job.seed, failure.report->kind.data(),
              failure.report->failure.data());
  std::printf("configuration: %s\n", sim::describe(sim::make_config(failure.job.seed, failure.job.overrides)).c_str());
  std::printf("reproduce: %s\n", sim::command_line(failure.job.seed, failure.job.overrides).c_str());
  if (failure.minimiser_runs > 0) {
    std::printf("smallest found in %u runs: %s\n%s\n", failure.minimiser_runs,
                sim::command_line(failure.job.seed, failure.smallest).c_str(), report.failure.data());
  }
  std::printf("its last events, by virtual time (trace hash %016" PRIx64 "):\n", report.trace_hash);
  for_trace(report, trace_lines, [](const char* line) { std::printf("%s\n", line); });
}

void print_totals(const Totals& t, std::size_t failures) {
  std::printf("%" PRIu64 " seeds, %zu failures; %" PRIu64 " operations (%" PRIu64 " refused, %" PRIu64
              " of unknown outcome), %" PRIu64 " starts, %" PRIu64 " audits, %" PRIu64 " faults, %" PRIu64
              " disks beyond repair that said so\n",
              t.seeds, failures, t.operations, t.refused, t.unknown, t.starts, t.audits, t.faults, t.unreadable);
  std::printf("%.1f s of virtual time in %.1f s of one core: %.1fx\n", static_cast<double>(t.virtual_ns) / 1e9,
              static_cast<double>(t.real_ns) / 1e9, t.ratio());
}

void print_json(const Totals& t, const std::vector<Failure>& failures, const std::string& hash,
                std::size_t trace_lines) {
  JsonWriter json;
  json.begin_object();
  json.field("seeds", t.seeds)
      .field("operations", t.operations)
      .field("refused", t.refused)
      .field("unknown", t.unknown);
  json.field("starts", t.starts)
      .field("audits", t.audits)
      .field("faults", t.faults)
      .field("beyond_repair", t.unreadable);
  json.field("virtual_s", static_cast<double>(t.virtual_ns) / 1e9)
      .field("real_s", static_cast<double>(t.real_ns) / 1e9);
  json.field("speed", t.ratio());
  if (!hash.empty()) json.field("trace_hash", hash);
  json.begin_array("failures");
  for (const Failure& failure : failures) {
    json.begin_object();
    json.field("seed", failure.job.seed)
        .field("kind", failure.report->kind.data())
        .field("what", failure.report->failure.data());
    json.field("reproduce", sim::command_line(failure.job.seed, failure.job.overrides));
    json.field("smallest", sim::command_line(failure.job.seed, failure.smallest));
    json.begin_array("trace");
    for_trace(*failure.smallest_report, trace_lines, [&](const char* line) { json.value(line); });
    json.end_array();
    json.end_object();
  }
  json.end_array();
  json.end_object();
  std::printf("%s\n", json.text().c_str());
}

// Counts: on a terminal in place, else a line now and then. A failure is said at once: its details follow only when
// the whole run has ended, and a long run may be cut short.
class Progress {
 public:
  explicit Progress(std::uint64_t total) : total_(total) {}
  void show(const Totals& totals, std::size_t failures) {
    const auto now_ns = runtime::now_ns();
    if (total_ == 1 || now_ns - last_ns_ < (terminal_ ? 500'000'000u : 10'000'000'000u)) return;
    last_ns_ = now_ns;
    std::fprintf(stderr, "%s%" PRIu64 " of %" PRIu64 " seeds, %zu failures, %.1fx%s", terminal_ ? "\r" : "",
                 totals.seeds, total_, failures, totals.ratio(), terminal_ ? "" : "\n");
  }
  void say(std::uint64_t seed, const sim::Report& failure) const {
    if (total_ == 1) return;
    std::fprintf(stderr, "%sseed %" PRIu64 " failed: %s: %s\n", terminal_ ? "\r" : "", seed, failure.kind.data(),
                 failure.failure.data());
  }
  ~Progress() {
    if (terminal_ && last_ns_ != 0) std::fprintf(stderr, "\n");
  }

 private:
  std::uint64_t total_;
  bool terminal_ = !runtime::machine_info().bare && isatty(STDERR_FILENO) != 0;
  std::uint64_t last_ns_ = 0;
};

}  // namespace

int sim(const SimOptions& options) {
  sim::Overrides overrides;
  overrides.swarm = options.swarm;
  if (options.seconds > 0) overrides.seconds = options.seconds;
  if (options.cores > 0) overrides.cores = options.cores;
  if (options.clients > 0) overrides.clients = options.clients;
  if (options.transactors > 0) overrides.transactors = options.transactors;
  if (!options.faults.empty()) {
    const auto faults = sim::FaultSet::parse(options.faults);
    if (!faults) {
      std::fprintf(stderr, "kelda sim: %s\n", faults.error().message().c_str());
      return kExitUsage;
    }
    overrides.faults = *faults;
  }
  const bool single = options.first_seed == options.last_seed;
  if (single && !options.json)
    std::printf("seed %" PRIu64 ": %s\n", options.first_seed,
                sim::describe(sim::make_config(options.first_seed, overrides)).c_str());
  std::fflush(stdout);

  Totals totals;
  std::vector<Failure> failures;
  std::string hash, note;
  {
    Progress progress(options.last_seed - options.first_seed + 1);
    std::uint64_t next_seed = options.first_seed;
    run_sim_jobs(
        options.jobs,
        [&]() -> std::optional<SimJob> {
          if (next_seed > options.last_seed || failures.size() >= options.max_failures) return std::nullopt;
          return SimJob{next_seed++, overrides};
        },
        [&](const SimJob& job, const sim::Report& report) {
          totals.add(report);
          hash = single ? fmt::format("{:016x}", report.trace_hash) : "";
          note = report.note.data();
          if (report.failed) {
            failures.emplace_back().job = job;
            failures.back().report = std::make_unique<sim::Report>(report);
            progress.say(job.seed, report);
          }
          progress.show(totals, failures.size());
        });
  }
  for (Failure& failure : failures) make_smaller(failure, options.minimise);
  if (options.json) {
    print_json(totals, failures, hash, options.trace_lines);
  } else {
    for (const Failure& failure : failures) print_failure(failure, options.trace_lines);
    if (single && failures.empty() && !note.empty()) std::printf("ended early: %s\n", note.c_str());
    print_totals(totals, failures.size());
    if (single) std::printf("trace hash %s\n", hash.c_str());
  }
  return failures.empty() && totals.seeds > 0 ? 0 : kExitFailed;
}

}  // namespace kelda::tools
