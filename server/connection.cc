#include "server/connection.h"

#include <algorithm>
#include <utility>

#include "common/assert.h"

namespace kelda::server {

namespace {

// Replies that are sent before the rest of the input is carried out.
constexpr std::size_t kSendThresholdBytes = 256 * 1024;
// One write, with its own deadline: a slow client that makes progress is kept.
constexpr std::size_t kWritePieceBytes = 64 * 1024;
// Buffers of more make it likely that a request took long.
constexpr std::size_t kLargeBytes = 64 * 1024;
// Arguments of one request that are read before others may run.
constexpr std::size_t kArgumentsAStep = 1024;
// Output memory that an idle client keeps.
constexpr std::size_t kKeepOutputBytes = 4 * 1024;

constexpr runtime::TimeNs kSecondNs = 1'000'000'000, kMillisecondNs = 1'000'000;
constexpr runtime::TimeNs kLingerNs = 500 * kMillisecondNs;
constexpr std::size_t kLingerBytes = 16 * 1024 * 1024;
constexpr runtime::TimeNs kStallTickNs = 100 * kMillisecondNs, kStalledNs = 50 * kMillisecondNs;

}  // namespace

ConnectionLoop::ConnectionLoop(ServerState& server, StallWatch& stalls, std::unique_ptr<net::Connection> connection,
                               std::shared_ptr<ClientInfo> info)
    : server_(server), stalls_(stalls), connection_(std::move(connection)), client_(server, std::move(info)) {
  client_.info->connection = connection_.get();
}

void ConnectionLoop::report_buffers() {
  ClientInfo& info = *client_.info;
  const std::uint64_t bytes = input_.capacity() + parser_.memory_bytes() + client_.buffer_bytes();
  client_.memory.report(bytes);
  const auto tell = [](std::atomic<std::uint64_t>& field, std::uint64_t value) {
    field.store(value, std::memory_order_relaxed);
  };
  tell(info.memory_bytes, bytes);
  tell(info.input_bytes, input_.data().size());
  tell(info.input_free_bytes, input_.capacity() - input_.data().size());
  tell(info.argument_bytes, parser_.memory_bytes());
  tell(info.queued_bytes, client_.multi.queue_bytes);
  tell(info.reply_capacity_bytes, client_.out.capacity());
}

ConnectionLoop::~ConnectionLoop() {
  client_.info->connection = nullptr;
}

void ConnectionLoop::run() {
  while (true) {
    execute_all();
    if (!send()) return;
    if (client_.closing) {
      if (ends_with_an_error_) linger();
      return;
    }
    if (server_.stopping.load(std::memory_order_acquire) || client_.info->killed.load(std::memory_order_relaxed))
      return;
    if (client_.info->engine_failed) return say_that_the_engine_failed();
    if (!std::exchange(read_aside_, false) && !read_more()) return;
  }
}

void ConnectionLoop::execute_all() {
  client_.begin_turn();
  while (!client_.closing && !broken_) {
    ParserLimits limits = client_.parser_limits();
    limits.arguments_a_call = kArgumentsAStep;
    const auto outcome = parser_.next(input_, limits);
    if (outcome == RequestParser::Outcome::kNeedMore) return;
    if (outcome == RequestParser::Outcome::kPaused) {
      report_buffers();
      if (!client_.give_way(true)) client_.closing = true;
      continue;
    }
    if (outcome == RequestParser::Outcome::kError) {
      Reply(client_.out, client_.resp3, SIZE_MAX).error("ERR " + parser_.error());
      client_.closing = ends_with_an_error_ = true;
      return;
    }
    if (const auto* refusal = parser_.refusal()) {
      client_.refuse(*refusal);
    } else {
      client_.execute(parser_.arguments());
    }
    report_buffers();
    if (client_.out.size() >= kSendThresholdBytes) {
      if (!send()) return;
      client_.count_time_from_now();
    }
    const bool large = input_.capacity() + client_.out.capacity() > kLargeBytes;
    if (client_.rest(large)) client_.read_clock();
    if (client_.info->killed.load(std::memory_order_relaxed)) client_.closing = true;
  }
}

void ConnectionLoop::say_that_the_engine_failed() {
  const auto health = server_.database.health();
  KELDA_ASSERT(!health);
  Reply(client_.out, client_.resp3, SIZE_MAX).error(error_text(health.error()));
  if (send()) linger();
}

// A connection that is closed with bytes unread is reset, and the client may lose the error that it was just sent. So
// what it is still sending is read for a moment.
void ConnectionLoop::linger() {
  const runtime::TimeNs deadline_ns = runtime::now_ns() + kLingerNs;
  for (std::size_t left = kLingerBytes; left > 0;) {
    input_.consume(input_.data().size());
    const auto count = connection_->read(input_.room(), deadline_ns);
    if (!count || *count == 0) return;
    left -= std::min(left, *count);
  }
}

bool ConnectionLoop::read_more() {
  const bool between_requests = input_.data().empty() && !parser_.in_request();
  if (between_requests) {
    input_.shrink();
    parser_.shrink();
  }
  const MutableBytes room = input_.room(parser_.needed_bytes());
  report_buffers();
  const std::uint32_t timeout_s = server_.config.idle_timeout_s.load(std::memory_order_relaxed);
  const runtime::TimeNs deadline_ns = timeout_s == 0 ? runtime::kNever : runtime::now_ns() + timeout_s * kSecondNs;
  client_.info->reading = true;
  client_.info->waiting_for_request = between_requests;
  const auto count = connection_->read(room, deadline_ns);
  client_.info->reading = client_.info->waiting_for_request = false;
  if (client_.info->being_told) {
    client_.info->told.wait();
    return false;
  }
  if (!count || *count == 0) return false;
  input_.filled(*count);
  client_.info->active_ms.store(wall_clock_ms(), std::memory_order_relaxed);
  report_buffers();
  server_.stats.add(Counter::kInputBytes, *count);
  server_.stats.add(Counter::kReads);
  return true;
}

bool ConnectionLoop::write(Bytes data) {
  const runtime::TimeNs now_ns = runtime::now_ns();
  writing_since_ns_ = now_ns;
  stalls_.writing_.push_back(this);
  const auto written = connection_->write(data, now_ns + server_.options.write_timeout_s * kSecondNs);
  writing_since_ns_ = runtime::kNever;
  std::erase(stalls_.writing_, this);
  if (reading_aside_) aside_done_.wait();
  server_.stats.add(Counter::kWrites);
  if (written.failed_with(Code::kTimeout)) server_.stats.add(Counter::kOutputTimeouts);
  return written.has_value();
}

// The most that waited at once, of the last seconds.
void ConnectionLoop::note_peak() {
  constexpr std::int64_t kForgetAfterMs = 5000;
  std::atomic<std::uint64_t>& peak = client_.info->reply_peak_bytes;
  const std::int64_t now_ms = client_.keys.now_ms();
  if (client_.out.size() < peak.load(std::memory_order_relaxed) && now_ms - reply_peak_ms_ < kForgetAfterMs) return;
  peak.store(client_.out.size(), std::memory_order_relaxed);
  reply_peak_ms_ = now_ms;
}

bool ConnectionLoop::send() {
  if (broken_) return false;
  const auto durable = client_.make_durable();
  if (!durable) client_.closing = ends_with_an_error_ = true;
  std::string& out = client_.out;
  client_.info->output_bytes.store(out.size(), std::memory_order_relaxed);
  note_peak();
  for (std::size_t sent = 0; sent < out.size() && !broken_; sent += kWritePieceBytes) {
    broken_ = !write(as_bytes(std::string_view(out).substr(sent, kWritePieceBytes)));
  }
  server_.stats.add(Counter::kOutputBytes, out.size());
  out.clear();
  if (out.capacity() > kKeepOutputBytes && input_.data().empty()) std::string().swap(out);
  client_.info->output_bytes.store(0, std::memory_order_relaxed);
  return !broken_;
}

void ConnectionLoop::read_while_stalled() {
  while (writing_since_ns_ != runtime::kNever && input_.data().size() < client_.parser_limits().max_request_bytes) {
    const auto count = connection_->read(input_.room(), runtime::now_ns() + kStalledNs);
    if (count.failed_with(Code::kTimeout)) continue;
    // The end, or an error: the client's own fiber will meet it again.
    if (!count || *count == 0) break;
    input_.filled(*count);
    read_aside_ = true;
    report_buffers();
    server_.stats.add(Counter::kInputBytes, *count);
  }
  reading_aside_ = false;
  aside_done_.set();
}

void StallWatch::run() {
  while (!stop_.wait_until(runtime::now_ns() + kStallTickNs)) {
    for (ConnectionLoop* loop : writing_) {
      if (loop->reading_aside_ || runtime::now_ns() - loop->writing_since_ns_ < kStalledNs) continue;
      loop->reading_aside_ = true;
      loop->aside_done_.reset();
      // Without memory for a fiber the client waits; nothing is lost.
      if (!runtime::Core::current().spawn([loop] { loop->read_while_stalled(); },
                                          {.name = "read-aside", .stack_bytes = 32 * 1024})) {
        loop->reading_aside_ = false;
      }
    }
  }
}

}  // namespace kelda::server
