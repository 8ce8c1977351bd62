#include "tools/sim_jobs.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <new>
#include <vector>

#include <fmt/format.h>

namespace kelda::tools {

namespace {

constexpr unsigned kLongestSeconds = 600;

struct Slot {
  SimJob job;
  sim::Report* report = nullptr;  // shared with the child
  pid_t child = 0;
};

void mark_failed(sim::Report& report, std::string_view kind, const std::string& what) {
  report.failed = true;
  sim::assign(report.kind, kind);
  sim::assign(report.failure, what);
}

bool start(Slot& slot, const SimJob& job) {
  slot.job = job;
  new (slot.report) sim::Report;
  const pid_t parent = getpid();
  slot.child = fork();
  if (slot.child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a simulation that is stopped leaves nothing running
    if (getppid() != parent) _exit(127);
    alarm(kLongestSeconds);
    sim::run_simulation(sim::make_config(job.seed, job.overrides), *slot.report, [] { _exit(0); });
    _exit(0);
  }
  if (slot.child < 0) mark_failed(*slot.report, "no process", fmt::format("fork: {}", std::strerror(errno)));
  return slot.child > 0;
}

void judge(sim::Report& report, int status) {
  if (report.finished || report.failed) return;
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
    mark_failed(report, "hung", fmt::format("not done after {} seconds of real time", kLongestSeconds));
  } else {
    mark_failed(report, "aborted",
                fmt::format("the process ended by signal {} (see above)", WIFSIGNALED(status) ? WTERMSIG(status) : 0));
  }
}

}  // namespace

void run_sim_processes(std::uint32_t jobs, FunctionRef<std::optional<SimJob>()> next,
                       FunctionRef<void(const SimJob&, const sim::Report&)> done) {
  const std::size_t bytes = jobs * sizeof(sim::Report);
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) jobs = 0;
  std::vector<Slot> slots(jobs);
  for (std::uint32_t i = 0; i < jobs; ++i) slots[i].report = static_cast<sim::Report*>(memory) + i;
  std::uint32_t running = 0;
  const auto fill = [&](Slot& slot) {
    while (const auto job = next()) {
      if (start(slot, *job)) {
        ++running;
        return;
      }
      done(slot.job, *slot.report);
    }
  };
  for (Slot& slot : slots) fill(slot);
  while (running > 0) {
    int status = 0;
    const pid_t ended = waitpid(-1, &status, 0);
    if (ended < 0 && errno == EINTR) continue;
    if (ended < 0) break;
    for (Slot& slot : slots) {
      if (slot.child != ended) continue;
      --running;
      slot.child = 0;
      judge(*slot.report, status);
      done(slot.job, *slot.report);
      fill(slot);
      break;
    }
  }
  if (memory != MAP_FAILED) munmap(memory, bytes);
}

}  // namespace kelda::tools
