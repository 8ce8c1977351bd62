// Runtime::run: one thread a core, the same text hosted and bare.
//
// The life of a served core other than core 0:
//   starting -> running (core is set) -> out of its loop, by the stop message -> detached -> joined
//          '--> failed (started holds the error) ------------------------------------------> joined
#include <atomic>
#include <optional>
#include <string>
#include <system_error>
#include <thread>

#include "runtime/core_internals.h"

namespace kelda::runtime {

namespace {

// Ends the loop of the core it is posted to.
struct StopMessage : Message {
  bool stopped = false;
  StopMessage() {
    run = [](Message& self, Core&) { static_cast<StopMessage&>(self).stopped = true; };
  }
};

struct ServedThread {
  std::thread thread;
  StopMessage stop;
  Core* core = nullptr;
  Result<> started;
  std::atomic<std::uint32_t> reported{0};  // released after core and started were written
};

class ThreadedRuntime final : public Runtime {
 public:
  ThreadedRuntime(Core& first, RuntimeOptions options) : options_(options) { cores_.push_back(&first); }
  ~ThreadedRuntime() override { stop(); }

  std::uint32_t core_count() const override { return static_cast<std::uint32_t>(cores_.size()); }
  Core& core(std::uint32_t i) override {
    KELDA_ASSERT(i < cores_.size());
    return *cores_[i];
  }

  Result<> start() {
    for (std::uint32_t i = 1; i < options_.core_count; ++i) TRY(start_one());
    return {};
  }

  void stop() {
    for (auto& served : threads_) {
      if (served->core != nullptr) served->core->post(served->stop);
    }
    for (auto& served : threads_) {
      if (served->thread.joinable()) served->thread.join();
    }
    threads_.clear();
  }

 private:
  Result<> start_one() {
    threads_.push_back(std::make_unique<ServedThread>());
    ServedThread& served = *threads_.back();
    looping_.fetch_add(1, std::memory_order_relaxed);
    try {
      served.thread = std::thread([this, &served] { serve(served); });
    } catch (const std::system_error& refused) {
      looping_.fetch_sub(1, std::memory_order_relaxed);
      return Error(Code::kOutOfMemory, std::string("a thread for another core: ") + refused.what());
    }
    served.reported.wait(0, std::memory_order_acquire);
    TRY(std::move(served.started));
    cores_.push_back(served.core);
    return {};
  }

  void serve(ServedThread& served) {
    Result<Core*> core = CoreInternals::attach(process_platform(), true);
    if (core) {
      served.core = *core;
    } else {
      served.started = std::move(core).error();
    }
    served.reported.store(1, std::memory_order_release);
    served.reported.notify_one();
    if (served.core != nullptr) CoreInternals::of(*served.core).run_until([&] { return served.stop.stopped; });
    wait_for_all_to_leave();
    if (served.core != nullptr) CoreInternals::detach(*served.core);
  }

  // No core frees its fibers before all are out of their loops: what runs on one may point into a stack of another.
  void wait_for_all_to_leave() {
    std::uint32_t left = looping_.fetch_sub(1, std::memory_order_acq_rel) - 1;
    looping_.notify_all();
    while (left != 0) {
      looping_.wait(left, std::memory_order_acquire);
      left = looping_.load(std::memory_order_acquire);
    }
  }

  RuntimeOptions options_;
  std::vector<Core*> cores_;
  std::vector<std::unique_ptr<ServedThread>> threads_;
  std::atomic<std::uint32_t> looping_{0};
};

Result<int> run_on(Core& first, RuntimeOptions options, std::move_only_function<int(Runtime&)> main) {
  ThreadedRuntime runtime(first, options);
  TRY(runtime.start());
  std::optional<int> value;
  TRY(first.spawn([&] { value = main(runtime); }, {.name = "main", .stack_bytes = 256 * 1024}));
  CoreInternals::of(first).run_until([&] { return value.has_value(); });
  return *value;
}

}  // namespace

Result<int> Runtime::run(RuntimeOptions options, std::move_only_function<int(Runtime&)> main) {
  const std::uint32_t most = process_platform().max_threads();
  if (options.core_count == 0 || options.core_count > most) {
    return Error(Code::kInvalidArgument, "the number of cores must be between 1 and " + std::to_string(most));
  }
  Core& first = Core::current();
  if (first.stats().fibers_alive > 0) {
    return Error(Code::kInvalidArgument, "the calling thread has fibers of its own: start the runtime from another");
  }
  Result<int> result = run_on(first, options, std::move(main));
  CoreInternals::detach(first);
  return result;
}

}  // namespace kelda::runtime
