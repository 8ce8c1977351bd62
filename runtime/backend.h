// The platform seam of the runtime: what a core needs from Linux, from bare hardware, or from a simulation.
//
// Contract: poll() and sleep() are called by the core's own loop; wake() by any thread. Neither runs fibers. A backend
// belongs to one core from start to stop; layers above may cast it to its concrete type to reach their device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "common/result.h"
#include "runtime/core.h"

namespace kelda::runtime {

class CoreBackend {
 public:
  virtual ~CoreBackend() = default;
  // Once, before anything else: the core that it serves.
  virtual void attached(Core&) {}
  // Starts what was queued, reaps what completed, never blocks; returns the number of completions handled.
  // about_to_sleep: nothing is ready, so that queued submissions may be left to sleep(), which starts them too.
  virtual std::size_t poll(bool about_to_sleep) = 0;
  // Blocks until wake(), a completion, or the deadline; may return early. Does not run completions.
  virtual void sleep(TimeNs deadline_ns) = 0;
  // Ends the current or else the next sleep(). From any thread.
  virtual void wake() = 0;
  // Ends all I/O in flight (cancelled or completed), so that buffers on fibers' stacks may be freed. False when some
  // could not be ended: their memory must then stay.
  virtual bool quiesce() = 0;
};

class Platform {
 public:
  virtual ~Platform() = default;
  virtual Result<std::unique_ptr<CoreBackend>> make_backend() = 0;
  virtual TimeNs now_ns() = 0;
  virtual std::int64_t wall_clock_us() = 0;
  virtual void random_bytes(MutableBytes out) = 0;
  virtual std::uint32_t cpu_count() = 0;
  // How many threads there can be at once: bare no more than CPUs.
  virtual std::uint32_t max_threads() = 0;
};

// Hosted or bare, decided at the first call.
Platform& process_platform();
Platform& hosted_platform();

}  // namespace kelda::runtime
