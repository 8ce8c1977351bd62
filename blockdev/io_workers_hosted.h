// Threads that block in the system instead of a core: for machines where io_uring is forbidden, and for the few
// operations that io_uring does not have. Requests complete by a message to the core that submitted them.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "blockdev/device_hosted.h"

namespace kelda::blockdev {

class IoWorkers {
 public:
  explicit IoWorkers(const DiskFile& file) : file_(file) {}
  // Nothing may be in flight.
  ~IoWorkers();
  // The request's InFlight is filled in. From any core. Threads are started at the first call.
  void submit(Request& request);

 private:
  static constexpr std::size_t kThreads = 8;
  void work();

  const DiskFile& file_;
  std::mutex mutex_;  // held for a few instructions and never across a park
  std::condition_variable work_came_;
  Request* first_ = nullptr;  // linked by Request::next
  Request* last_ = nullptr;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace kelda::blockdev
