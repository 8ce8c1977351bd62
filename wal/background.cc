// What runs behind the traffic: checkpoints when the ring fills, and batches that nobody waits for.

#include "wal/log_impl.h"

namespace kelda::wal {
namespace {

constexpr runtime::TimeNs kLazyWriteNs = 500'000'000;

// Under Durability::kNone nobody waits for commits: the interval bounds what a crash loses. Woken when a buffer fills.
void write_lazily(Log::Impl& log) {
  log.writer_running.store(true, std::memory_order_release);
  while (!log.stopping.load(std::memory_order_relaxed) && !log.flush.failed()) {
    log.write_wanted.wait_until(runtime::now_ns() + kLazyWriteNs);
    log.write_wanted.reset();
    while (log.flush.wants_warmth() && !log.stopping.load(std::memory_order_relaxed) && log.flush.warm()) {
    }
    // A failure is kept by the flush and told to everybody; it also ends this loop.
    if (log.flush.hardened().value + 1 < log.log_now() && !log.flush.wait_all()) break;
  }
  log.writer_running.store(false, std::memory_order_release);
  for (auto& buffer : log.buffers) buffer->wake_all();
}

}  // namespace

void Log::checkpoint_loop() {
  Impl& log = *impl_;
  runtime::Completion writer;
  auto started = runtime::spawn_counted(runtime::Core::current(), writer, [&] { write_lazily(log); }, {.name = "log-writer"});
  if (!started) {
    log.flush.fail(Error(Code::kFailed, "the log's background writer could not start: " + started.error().to_string()));
  }
  while (!log.stopping.load(std::memory_order_relaxed) && log.flush.health()) {
    log.checkpoint_wanted.wait();
    log.checkpoint_wanted.reset();
    while (log.space.wants_checkpoint() && !log.stopping.load(std::memory_order_relaxed)) {
      if (!log.checkpointer.run(false)) break;
    }
  }
  writer.wait();
}

void Log::set_checkpoint_listener(CheckpointListener& listener) { impl_->checkpoint_listener = &listener; }

void Log::stop() {
  impl_->stopping.store(true, std::memory_order_relaxed);
  impl_->checkpoint_wanted.set();
  impl_->write_wanted.set();
}

}  // namespace kelda::wal
