#include <algorithm>

#include "server/client.h"

namespace kelda::server {

namespace {

// Retries 0..7 only let others run; then pauses double from 50 us to 10 ms: about two seconds in all.
constexpr int kYields = 8;
constexpr int kRetries = 220;
constexpr runtime::TimeNs kFirstPauseNs = 50'000, kLongestPauseNs = 10'000'000;

void pause(int attempt) {
  runtime::Core& core = runtime::Core::current();
  if (attempt < kYields) return core.yield();
  const int doublings = std::min(attempt - kYields, 8);
  const runtime::TimeNs longest = std::min(kFirstPauseNs << doublings, kLongestPauseNs);
  // Random, or two clients that collided once would go on colliding.
  core.sleep_until(runtime::now_ns() + longest / 2 + runtime::random_u64() % (longest / 2));
}

}  // namespace

Result<> with_retries(ServerState& server, FunctionRef<Result<>()> body) {
  for (int attempt = 0;; ++attempt) {
    auto result = body();
    if (!result.failed_with(Code::kConflict) || attempt == kRetries) return result;
    if (attempt >= kYields && server.stopping.load(std::memory_order_relaxed)) return result;
    server.stats.add(Counter::kTransactionRetries);
    pause(attempt);
  }
}

std::string error_text(const Error& error) {
  switch (error.code()) {
    case Code::kTooLarge:
      return "ERR " + error.to_string();
    case Code::kNoSpace:
      return "DISKFULL the disk is full: delete keys or give Kelda a larger disk; reads and deletes go on";
    case Code::kOutOfMemory:
      return "OOM the memory bound is reached: " + error.to_string();
    case Code::kConflict:
    case Code::kLockTimeout:
      return "CONFLICT the transaction met others on its keys too often; try again";
    case Code::kFailed:
      return "MISCONF the engine has stopped: " + error.to_string();
    case Code::kCorrupt:
      return "CORRUPT " + error.to_string();
    case Code::kIo:
      return "IOERR " + error.to_string();
    default:
      return "ERR " + error.to_string();
  }
}

}  // namespace kelda::server
