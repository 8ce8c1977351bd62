#include "server/server_state.h"

#include <mutex>

namespace kelda::server {

namespace {

std::string random_hex(std::size_t digits) {
  std::string text;
  while (text.size() < digits) text.push_back("0123456789abcdef"[runtime::random_u64() & 15]);
  return text;
}

}  // namespace

std::int64_t wall_clock_ms() {
  return std::max<std::int64_t>(runtime::wall_clock_us() / 1000, 0);  // a clock before 1970 cannot be right anyway
}

bool LiveConfig::password_required() {
  const std::scoped_lock guard(latch_);
  return !password_.empty();
}

bool LiveConfig::password_matches(std::string_view candidate) {
  const std::scoped_lock guard(latch_);
  unsigned difference = candidate.size() == password_.size() ? 0 : 1;
  for (std::size_t i = 0; i < candidate.size() && !password_.empty(); ++i) {
    difference |= static_cast<unsigned char>(candidate[i] ^ password_[i % password_.size()]);
  }
  return difference == 0 && !password_.empty();
}

std::string LiveConfig::password() {
  const std::scoped_lock guard(latch_);
  return password_;
}

void LiveConfig::set_password(std::string_view password) {
  const std::scoped_lock guard(latch_);
  password_ = password;
}

ServerState::ServerState(Database& db, const ServerOptions& given)
    : database(db),
      options(given),
      run_id(random_hex(40)),
      started_ms(wall_clock_ms()),
      config(given),
      keyspace(db),
      command_stats(commands.numbers()),
      buffers(given.buffer_limit_bytes),
      last_checkpoint_ms(started_ms) {}

std::uint64_t ServerState::busy_ns() const {
  std::uint64_t sum = 0;
  for (const runtime::Core* core : cores) sum += core->stats().busy_ns;
  return sum;
}

void ServerState::request_stop() {
  stopping.store(true, std::memory_order_release);
  stop.set();
}

Result<> ServerState::checkpoint() {
  const std::int64_t began_ms = wall_clock_ms();
  checkpoint_began_ms.store(began_ms, std::memory_order_relaxed);
  const auto done = database.checkpoint();
  checkpoint_began_ms.store(-1, std::memory_order_relaxed);
  last_checkpoint_ok.store(done.has_value(), std::memory_order_relaxed);
  if (!done) return done.error();
  last_checkpoint_ms.store(wall_clock_ms(), std::memory_order_relaxed);
  last_checkpoint_took_ms.store(std::max<std::int64_t>(wall_clock_ms() - began_ms, 0), std::memory_order_relaxed);
  checkpoints.fetch_add(1, std::memory_order_relaxed);
  return {};
}

}  // namespace kelda::server
