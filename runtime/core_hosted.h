// Backends of a core on Linux: one that sleeps in io_uring, and one that sleeps on a futex where io_uring is forbidden.
#pragma once

#include <memory>

#include "runtime/backend.h"
#include "runtime/ring_hosted.h"

namespace kelda::runtime {

class HostedBackend : public CoreBackend {
 public:
  // Null on the backend without io_uring.
  virtual Ring* ring() = 0;
};

// KELDA_IO_URING=off in the environment chooses the fallback: for tests of it, and for those who distrust io_uring.
Result<std::unique_ptr<CoreBackend>> make_hosted_backend();

}  // namespace kelda::runtime
