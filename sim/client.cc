#include "sim/client.h"

#include "server/server_state.h"

namespace kelda::sim {

namespace {

constexpr runtime::TimeNs kPatienceNs = 5 * kSecondNs;  // for a reply
// How long the server keeps a connection whose client is silent: as short as a keep-alive can be.
constexpr runtime::TimeNs kKeepAliveNs = 300 * kMillisecondNs;

void sleep_for(runtime::TimeNs duration_ns) {
  runtime::Core::current().sleep_until(runtime::now_ns() + duration_ns);
}

}  // namespace

SimClient::SimClient(World& world, std::uint32_t number)
    : world_(world), number_(number), dice_(world.config.seed * 7919 + number) {
  if (number >= world.config.clients) transactor_.emplace(world.isolation, dice_.next());
}

void SimClient::cut() {
  if (connection_ != nullptr) connection_->cut();
}

void SimClient::vanish() {
  if (connection_ != nullptr) connection_->vanish();
}

bool SimClient::connect() {
  if (world_.listener == nullptr) return false;
  doing_ = "connecting";
  auto dialed = world_.listener->dial();
  if (!dialed) return false;
  incarnation_ = world_.incarnation;
  id_ = 0;
  connection_ = *std::move(dialed);
  resp_ = std::make_unique<RespClient>(*connection_);
  const auto id = resp_->call({"CLIENT", "ID"}, runtime::now_ns() + kPatienceNs);
  if (id && id->type == ':') {
    id_ = id->integer;
    return true;
  }
  disconnect();
  return false;
}

void SimClient::disconnect() {
  doing_ = "waiting for the server to drop its connection";
  resp_.reset();
  connection_.reset();
  const runtime::TimeNs keep_alive_ends_ns = runtime::now_ns() + kKeepAliveNs;
  while (id_ != 0 && world_.server != nullptr && world_.incarnation == incarnation_) {
    const auto info = world_.server->state().clients.find(static_cast<std::uint64_t>(id_));
    if (info == nullptr) return;
    if (runtime::now_ns() >= keep_alive_ends_ns) server::ClientRegistry::disconnect(info, /*only_idle=*/false);
    sleep_for(5 * kMillisecondNs);
  }
}

void SimClient::run() {
  while (!world_.over) {
    if (connect()) {
      work();
      disconnect();
    } else {
      doing_ = "waiting for a server";
      sleep_for(dice_.between(1, 10) * kMillisecondNs);
    }
  }
  doing_ = "done";
}

void SimClient::work() {
  if (transactor_) transactor_->connected();
  while (!world_.over) {
    doing_ = "thinking";
    if (!(transactor_ ? transact() : operate())) return;
  }
}

// Mostly without delay, so that transactions meet; the pauses hold down their number.
bool SimClient::transact() {
  const runtime::TimeNs gap_ns = world_.config.transactor_gap_ns();
  sleep_for(dice_.one_in(4) ? dice_.between(1, 8 * gap_ns) : dice_.between(1, 1 + gap_ns / 8));
  std::vector<std::unique_ptr<Operation>> operations;
  operations.push_back(transactor_->next());
  return carry_out(std::move(operations));
}

bool SimClient::operate() {
  sleep_for(dice_.between(1, world_.config.think_max_ns));
  std::vector<std::unique_ptr<Operation>> operations;
  if (dice_.one_in(12)) {
    WatchedRead watched{world_, world_.counters[dice_.below(world_.counters.size())]};
    operations.push_back(make_watched_read(watched));
    if (!carry_out(std::move(operations))) return false;
    if (!watched.done) return true;
    operations.clear();
    operations.push_back(make_watched_write(watched));
    return carry_out(std::move(operations));
  }
  std::vector<bool> busy(world_.registers[number_].size(), false);
  const std::uint64_t count = dice_.one_in(3) ? dice_.between(1, world_.config.pipeline_max) : 1;
  for (std::uint64_t i = 0; i < count; ++i) operations.push_back(make_operation(world_, dice_, number_, busy));
  return carry_out(std::move(operations));
}

// False when the connection is over.
bool SimClient::carry_out(std::vector<std::unique_ptr<Operation>> operations) {
  const runtime::TimeNs deadline_ns = runtime::now_ns() + kPatienceNs;
  std::string requests;
  std::vector<std::size_t> reply_counts;
  for (const auto& operation : operations) {
    reply_counts.push_back(operation->begin(requests));
    world_.trace.event("client {} sends {}", number_, operation->name());
  }
  doing_ = operations.back()->name();
  bool connected = resp_->send(requests, deadline_ns).has_value();
  for (std::size_t i = 0; i < operations.size(); ++i) {
    std::vector<Reply> replies;
    while (connected && replies.size() < reply_counts[i]) {
      auto reply = resp_->receive(deadline_ns);
      connected = reply.has_value();
      if (connected) replies.push_back(*std::move(reply));
      if (reply.failed_with(Code::kCorrupt)) world_.trace.fail("garbled reply", reply.error().message());
    }
    if (connected) {
      // EXECABORT says only that a command before it was refused: that one says why.
      const Reply& last = replies.back();
      const auto why = last.is_error("EXECABORT") ? std::ranges::find_if(replies, [](const Reply& r) { return r.is_error(); })
                                                  : replies.end() - 1;
      ended(*operations[i], operations[i]->answered(replies), &*why);
    } else {
      operations[i]->lost();
      ended(*operations[i], Fate::kUnknown, nullptr);
    }
  }
  return connected;
}

// Errors are in order when there is a reason for them. (Memory that lacks when a transaction is to be undone stops the
// engine.)
void SimClient::judge_error(const Operation& operation, const Reply& error) {
  const FaultSet& faults = world_.config.faults;
  const bool io = faults.has_io_errors();
  const bool excused = error.is_error("DISKFULL") || error.is_error("CONFLICT") || error.is_error("OOM") ||
                       (error.is_error("MISCONF") &&
                        (io || faults.ends_machines() || faults.has(FaultKind::kMemory) || world_.damaged)) ||
                       (error.is_error("IOERR") && (io || faults.ends_machines() || world_.damaged)) ||
                       (error.is_error("CORRUPT") && world_.damaged);
  if (!excused) world_.trace.fail("error without a reason", fmt::format("{}: {}", operation.name(), error.text));
}

void SimClient::ended(const Operation& operation, Fate fate, const Reply* last) {
  Report& report = world_.report();
  ++report.operations;
  if (last != nullptr && last->is_error()) judge_error(operation, *last);
  if (fate == Fate::kDone) {
    last_success_ns_ = runtime::now_ns();
  } else {
    ++(fate == Fate::kUnknown ? report.unknown_outcomes : report.refused);
  }
  world_.trace.event("client {} {} {}: {}", number_,
                     fate == Fate::kDone      ? "got"
                     : fate == Fate::kRefused ? "was refused"
                                              : "does not know of",
                     operation.name(), last == nullptr ? "connection lost" : last->to_string());
}

}  // namespace kelda::sim
