#include "runtime/core_sim.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "common/prng.h"
#include "runtime/core_internals.h"

namespace kelda::runtime {

namespace {

class SimPlatform final : public Platform {
 public:
  explicit SimPlatform(const SimOptions& options) : options_(options), random_(~options.seed) {}

  Result<std::unique_ptr<CoreBackend>> make_backend() override;
  TimeNs now_ns() override { return now_; }
  std::int64_t wall_clock_us() override { return options_.wall_start_us + wall_shift_us_ + static_cast<std::int64_t>(now_ / 1000); }
  void random_bytes(MutableBytes out) override {
    for (std::byte& b : out) b = static_cast<std::byte>(random_.next() >> 56);
  }
  std::uint32_t cpu_count() override { return options_.core_count; }
  std::uint32_t max_threads() override { return options_.core_count; }

  void advance_to(TimeNs time) { now_ = std::max(now_, time); }
  void shift_wall(std::int64_t by_us) { wall_shift_us_ += by_us; }

 private:
  const SimOptions& options_;
  Prng random_;
  std::int64_t wall_shift_us_ = 0;
  TimeNs now_ = 1'000'000'000;  // not zero: a deadline in the past stays possible
};

class SimBackend final : public CoreBackend {
 public:
  explicit SimBackend(SimPlatform& platform) : platform_(platform) {}
  std::size_t poll(bool) override { return 0; }
  // Only a core that ends comes here, to see its last I/O through.
  void sleep(TimeNs deadline_ns) override { platform_.advance_to(deadline_ns); }
  void wake() override {}
  bool quiesce() override { return true; }

 private:
  SimPlatform& platform_;
};

Result<std::unique_ptr<CoreBackend>> SimPlatform::make_backend() { return std::make_unique<SimBackend>(*this); }

class Simulation final : public Runtime {
 public:
  explicit Simulation(const SimOptions& options)
      : options_(options), platform_(options_), order_(options.seed), outer_(Core::current_or_null()) {}
  ~Simulation() override;

  std::uint32_t core_count() const override { return static_cast<std::uint32_t>(cores_.size()); }
  Core& core(std::uint32_t i) override {
    KELDA_ASSERT(i < cores_.size());
    return *cores_[i];
  }
  Result<> start();
  Result<int> run(std::move_only_function<int(Runtime&)> main);
  SimReport report() { return {steps_, platform_.now_ns(), trace_}; }

 private:
  CoreInternals& enter(Core& core);
  std::size_t housekeeping(bool all);
  void step(std::size_t nth_ready);
  void stray_unpark();
  bool pass_time();

  SimOptions options_;
  SimPlatform platform_;
  Prng order_;
  Core* outer_;  // the thread's own core, if it has one
  std::vector<Core*> cores_;
  std::uint64_t steps_ = 0;
  std::uint64_t trace_ = 0;
};

Simulation::~Simulation() {
  for (Core* core : cores_) {
    CoreInternals& in = enter(*core);
    in.in_loop = false;
    CoreInternals::detach(*core);
  }
  CoreInternals::set_current(outer_);
}

Result<> Simulation::start() {
  for (std::uint32_t i = 0; i < options_.core_count; ++i) {
    cores_.push_back(TRY(CoreInternals::attach(platform_, false)));
    CoreInternals::of(*cores_.back()).in_loop = true;  // for as long as the simulation lasts
  }
  return {};
}

CoreInternals& Simulation::enter(Core& core) {
  CoreInternals::set_current(&core);
  return CoreInternals::of(core);
}

// What a core does between fibers. Unless all shall be brought up to date, some cores are late this time.
std::size_t Simulation::housekeeping(bool all) {
  std::size_t events = 0;
  for (Core* core : cores_) {
    if (!all && order_.one_in(2)) continue;
    CoreInternals& in = enter(*core);
    events += in.take_messages() + in.expire_timers() + in.run_pollers();
  }
  return events;
}

void Simulation::step(std::size_t nth_ready) {
  std::size_t at = 0;
  while (nth_ready >= CoreInternals::of(*cores_[at]).ready.size()) {
    nth_ready -= CoreInternals::of(*cores_[at]).ready.size();
    ++at;
  }
  CoreInternals& in = enter(*cores_[at]);
  trace_ = Prng(trace_ ^ (at << 48) ^ (nth_ready << 32) ^ platform_.now_ns()).next();
  ++steps_;
  in.resume(*in.ready.pop_nth(nth_ready), 0);
  if (Fiber* fiber = in.gave_way.pop()) in.ready.push(*fiber);  // the order is chance anyway
  platform_.advance_to(platform_.now_ns() + order_.between(options_.step_min_ns, options_.step_max_ns));
}

void Simulation::stray_unpark() {
  CoreInternals& in = enter(*cores_[order_.below(cores_.size())]);
  std::vector<Fiber*> parked;
  for (auto& fiber : in.fibers) {
    if (fiber->state == Fiber::State::kParked) parked.push_back(fiber.get());
  }
  if (!parked.empty()) Core::unpark(*parked[order_.below(parked.size())]);
}

// Jumps to the next deadline of any core; false if there is none.
bool Simulation::pass_time() {
  TimeNs next = kNever;
  for (Core* core : cores_) next = std::min(next, enter(*core).next_deadline_ns());
  if (next != kNever) platform_.advance_to(next);
  return next != kNever;
}

Result<int> Simulation::run(std::move_only_function<int(Runtime&)> main) {
  std::optional<int> value;
  CoreInternals& first = enter(*cores_[0]);
  TRY(first.core.spawn([&] { value = main(*this); }, {.name = "main", .stack_bytes = 256 * 1024}));
  bool bring_all_up = false;
  while (!value) {
    if (steps_ >= options_.max_steps) return Error(Code::kTimeout, "the simulation has done its last step");
    const std::size_t events = housekeeping(bring_all_up);
    std::size_t ready = 0;
    for (Core* core : cores_) ready += CoreInternals::of(*core).ready.size();
    if (ready > 0) {
      step(order_.below(ready));
      bring_all_up = false;
      if (options_.stray_unparks && order_.one_in(8)) stray_unpark();
    } else if (events == 0 && bring_all_up) {
      if (!pass_time()) return Error(Code::kTimeout, "nothing is ready and no timer runs; parked: " + parked_fibers(*this));
    } else {
      bring_all_up = true;
    }
  }
  return *value;
}

}  // namespace

Result<int> run_simulated(SimOptions options, std::move_only_function<int(Runtime&)> main, SimReport* report) {
  if (options.core_count == 0 || options.core_count > Core::kMaxCores / 2) {
    return Error(Code::kInvalidArgument, "a simulation has between 1 and 64 cores");
  }
  Simulation simulation(options);
  TRY(simulation.start());
  Result<int> value = simulation.run(std::move(main));
  if (report != nullptr) *report = simulation.report();
  return value;
}

void shift_wall_clock(std::int64_t by_us) { static_cast<SimPlatform&>(Core::current().platform()).shift_wall(by_us); }

std::string parked_fibers(Runtime& runtime) {
  std::string text;
  for (std::uint32_t i = 0; i < runtime.core_count(); ++i) {
    text += (i == 0 ? "core " : " core ") + std::to_string(i) + ":";
    for (auto& fiber : CoreInternals::of(runtime.core(i)).fibers) {
      if (fiber->state == Fiber::State::kParked) text += std::string(" ") + fiber->name;
    }
  }
  return text;
}

}  // namespace kelda::runtime
