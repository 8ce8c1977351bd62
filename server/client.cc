#include "server/client.h"

#include <algorithm>

#include "common/assert.h"
#include "server/text.h"

namespace kelda::server {

namespace {
constexpr std::string_view kBuffersUsedUp =
    "OOM the memory for clients' requests and replies is used up; try again, or send less at a time";
}  // namespace

QueuedCommand::QueuedCommand(const Command& command, Arguments args) : command_(&command) {
  ends_.reserve(args.size());
  for (const std::string_view arg : args) {
    bytes_.append(arg);
    ends_.push_back(static_cast<std::uint32_t>(bytes_.size()));
  }
}

std::vector<std::string_view> QueuedCommand::args() const {
  std::vector<std::string_view> result;
  result.reserve(ends_.size());
  std::uint32_t begin = 0;
  for (const std::uint32_t end : ends_) {
    result.push_back(std::string_view(bytes_).substr(begin, end - begin));
    begin = end;
  }
  return result;
}

bool Call::is(std::size_t i, std::string_view word) const {
  return equals_ignoring_case(args[i], word);
}

Result<> Call::lines(std::span<const std::string_view> text) {
  reply.array(text.size());
  for (const std::string_view line : text) reply.simple(line);
  return {};
}

Result<> Call::fail(std::string_view error) {
  reply.error(error);
  failed = true;
  return {};
}

Result<> Call::wrong_arguments() {
  return fail("ERR wrong number of arguments for '" + std::string(command.name) + "' command");
}

Client::Client(ServerState& state, std::shared_ptr<ClientInfo> client_info)
    : server(state),
      info(std::move(client_info)),
      memory(state.buffers),
      keys(state.keyspace, state.watches),
      watches(state.watches, info->watch_changed),
      authenticated(!state.config.password_required()) {}

ParserLimits Client::parser_limits() const {
  return {.max_request_bytes = std::min(server.options.request_limit_bytes, memory.fair_room()),
          .unauthenticated = !authenticated};
}

void Client::select(std::uint32_t index) {
  db = index;
  info->db.store(index, std::memory_order_relaxed);
}

void Client::set_resp3(bool on) {
  resp3 = on;
  info->resp3.store(on, std::memory_order_relaxed);
}

Result<> Client::still_wanted() {
  // A connection that is closed looks like one whose client has only sent its last request. That one gets its answer if
  // it comes soon.
  constexpr runtime::TimeNs kLookEveryNs = 10'000'000, kAfterEndNs = 1'000'000'000;
  if (info->abandoned.load(std::memory_order_relaxed)) {
    return Error(Code::kAborted, "the connection was ended from elsewhere; the command was given up and is undone");
  }
  const runtime::TimeNs now_ns = runtime::now_ns();
  if (info->connection == nullptr || now_ns - looked_ns_ < kLookEveryNs) return {};
  looked_ns_ = now_ns;
  const auto presence = info->connection->presence();
  if (presence == net::Connection::Presence::kThere) return {};
  ended_since_ns_ = std::min(ended_since_ns_, now_ns);
  if (presence == net::Connection::Presence::kEnded && now_ns - ended_since_ns_ < kAfterEndNs) return {};
  closing = true;
  return Error(Code::kAborted, "the client has left; the command was given up and is undone");
}

void Client::end_multi() {
  multi.open = multi.spoiled = false;
  // One by one: there may be hundreds of thousands.
  for (; !multi.queue.empty(); multi.queue.pop_back()) turn_.step();
  std::vector<QueuedCommand>().swap(multi.queue);
  multi.queue_bytes = 0;
  info->queued.store(-1, std::memory_order_relaxed);
}

void Client::execute(Arguments args) {
  if (reply_mode == ReplyMode::kSkipNext) reply_mode = ReplyMode::kSkipThis;
  const std::size_t before = out.size();
  const std::uint64_t limit_bytes = std::min(server.options.output_limit_bytes, memory.fair_room());
  Reply reply(out, resp3, before + limit_bytes);
  dispatch(args, reply);
  if (reply.overflowed()) {
    reply.cut(before);
    refuse_long_reply(limit_bytes, reply);
  }
  if (out.size() < before) return;  // all replies were dropped
  count_call(std::string_view(out).substr(before));
  if (reply_mode != ReplyMode::kOn) {
    reply.cut(before);
    if (reply_mode == ReplyMode::kSkipThis) reply_mode = ReplyMode::kOn;
  } else if (out.size() > before) {
    ++unsent_replies_;
  }
  shrink_scratch();
}

void Client::count_call(std::string_view reply) {
  const bool failed = reply.starts_with('-');
  server.stats.add(Counter::kCommands);
  if (failed) {
    server.stats.add(Counter::kErrorReplies);
    server.command_stats.error(reply);
  }
  const runtime::TimeNs now_ns = runtime::now_ns();
  const std::uint64_t time_ns = counted_ns_ == 0 ? 0 : now_ns - counted_ns_;
  counted_ns_ = now_ns;
  if (called_ == nullptr) return;
  const std::size_t number = server.commands.number_of(*called_);
  rejected_ ? server.command_stats.rejected(number) : server.command_stats.called(number, time_ns, failed);
}

void Client::refuse_long_reply(std::size_t limit_bytes, Reply& reply) {
  if (limit_bytes < server.options.output_limit_bytes) {
    return reply.error(
        "OOM the memory for clients' requests and replies is used up; try again, or ask for less at a time");
  }
  reply.error("ERR the reply would be longer than " + std::to_string(limit_bytes) + " bytes; ask for less at a time");
}

void Client::shrink_scratch() {
  constexpr std::size_t kKeepBytes = 16 * 1024;
  for (std::string* scratch : {&value.raw, &other_value.raw, &text}) {
    if (scratch->capacity() > kKeepBytes) std::string().swap(*scratch);
  }
}

void Client::refuse(const RequestParser::Refusal& refusal) {
  Reply reply(out, resp3, SIZE_MAX);
  std::string message = "ERR ";
  if (refusal.request_too_large && parser_limits().max_request_bytes < server.options.request_limit_bytes) {
    message = kBuffersUsedUp;
  } else if (refusal.request_too_large) {
    message +=
        "the request is too large; the limit is " + std::to_string(server.options.request_limit_bytes) + " bytes";
  } else {
    message += "value is too large (" + std::to_string(refusal.bytes) + " bytes; the limit is " +
               std::to_string(kMaxValueBytes) + ")";
  }
  reply.error(message);
  if (multi.open) multi.spoiled = true;
  server.stats.add(Counter::kErrorReplies);
  server.stats.add(Counter::kCommands);
  ++unsent_replies_;
}

namespace {

std::string unknown_command(Arguments args) {
  constexpr std::size_t kShown = 128;  // Redis shows no more of either
  std::string text = "ERR unknown command '";
  text.append(args[0].substr(0, kShown));
  text += "', with args beginning with: ";
  std::size_t shown = 0;
  for (std::size_t i = 1; i < args.size() && shown < kShown; ++i) {
    const std::string_view arg = args[i].substr(0, std::min(args[i].find('\0'), kShown - shown));
    text.push_back('\'');
    text.append(arg);
    text += "' ";
    shown += arg.size() + 3;
  }
  return text;
}

std::string unknown_subcommand(const Command& container, std::string_view name) {
  std::string text = "ERR unknown subcommand '";
  text.append(name.substr(0, 128));
  text += "'. Try ";
  for (const char c : container.name) text.push_back(static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c));
  text += " HELP.";
  return text;
}

}  // namespace

void Client::dispatch(Arguments args, Reply& reply) {
  KELDA_ASSERT(!args.empty());
  called_ = nullptr;
  rejected_ = false;
  const auto reject = [&](std::string_view error) {
    rejected_ = true;
    if (multi.open) multi.spoiled = true;
    reply.error(error);
  };
  // What a web browser sends when a page makes it talk to this port. It gets no answer at all.
  if (equals_ignoring_case(args[0], "post") || equals_ignoring_case(args[0], "host:")) {
    out.clear();
    closing = true;
    return;
  }
  const Command* command = server.commands.find(args[0]);
  if (command == nullptr) return reject(unknown_command(args));
  const Command& container = *command;
  command = CommandTable::meant(container, args);
  if (command == nullptr) return reject(unknown_subcommand(container, args[1]));
  called_ = command;
  if (!command->arity_matches(args.size())) {
    const std::string why = "wrong number of arguments for '" + std::string(command->name) + "' command";
    if (command->name != "exec") return reject("ERR " + why);
    rejected_ = true;
    end_multi();
    watches.clear();
    return reply.error("EXECABORT Transaction discarded because of: " + why);
  }
  info->last_command.store(command, std::memory_order_relaxed);
  if (!authenticated && (command->flags & kNoAuth) == 0) return reject("NOAUTH Authentication required.");
  if (multi.open && (command->flags & kNoMulti) != 0) return reject("ERR Command not allowed inside a transaction");
  if (multi.open && (command->flags & kImmediate) == 0) return enqueue(*command, args, reply);
  run(*command, args, reply);
}

void Client::enqueue(const Command& command, Arguments args, Reply& reply) {
  QueuedCommand queued(command, args);
  multi.queue_bytes += queued.size_bytes();
  if (multi.queue_bytes > std::min(server.options.request_limit_bytes, memory.fair_room())) {
    multi.spoiled = true;
    if (multi.queue_bytes <= server.options.request_limit_bytes) return reply.error(kBuffersUsedUp);
    reply.error("ERR the transaction is too large; the limit is " + std::to_string(server.options.request_limit_bytes) +
                " bytes");
    return;
  }
  called_ = nullptr;  // it is called by EXEC
  multi.queue.push_back(std::move(queued));
  info->queued.store(static_cast<std::int32_t>(multi.queue.size()), std::memory_order_relaxed);
  reply.simple("QUEUED");
}

void Client::run(const Command& command, Arguments args, Reply& reply) {
  const std::size_t mark = reply.mark();
  const auto result = with_retries(server, [&]() -> Result<> {
    reply.cut(mark);
    return attempt(command, args, reply);
  });
  if (result) return;
  reply.cut(mark);
  reply.error(error_text(result.error()));
}

Result<> Client::attempt(const Command& command, Arguments args, Reply& reply) {
  Call call{*this, server, command, args, reply, keys};
  const bool transaction =
      (command.flags & kTransaction) != 0 || ((command.flags & kAtomicRead) != 0 && args.size() > 2);
  if (!transaction) return command.handler(call);
  keys.begin();
  auto result = command.handler(call);
  if (result && !call.failed) return keys.commit();
  keys.roll_back();
  return result;
}

Result<> Client::make_durable() {
  const std::uint32_t replies = unsent_replies_;
  unsent_replies_ = 0;
  const Lsn lsn = keys.lsn();
  keys.reset_lsn();
  if (lsn == kNoLsn) return {};
  auto durable = server.database.wait_durable(lsn);
  if (durable) return {};
  // None of these replies may be believed.
  out.clear();
  Reply reply(out, resp3, SIZE_MAX);
  for (std::uint32_t i = 0; i < replies; ++i) reply.error(error_text(durable.error()));
  return durable;
}

}  // namespace kelda::server
