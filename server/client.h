// One client's state, and how its requests are carried out, apart from any network: requests in, replies at the end of
// `out`.
//
// Contract: used by the client's fiber only. Replies in `out` may be shown to the client only once `keys.lsn()` is
// durable (connection.cc waits). execute() may park.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/turn.h"
#include "server/command.h"
#include "server/key_access.h"
#include "server/reply.h"
#include "server/request_parser.h"
#include "server/server_state.h"

namespace kelda::server {

// A command between MULTI and EXEC, with its own copy of its arguments.
class QueuedCommand {
 public:
  static constexpr std::size_t kAllocationBytes = 16;
  QueuedCommand(const Command& command, Arguments args);
  const Command& command() const { return *command_; }
  std::vector<std::string_view> args() const;
  // What it takes in memory, with what the allocator adds: a queue of small commands is more of that than of their bytes.
  std::size_t size_bytes() const {
    return sizeof *this + bytes_.capacity() + ends_.capacity() * sizeof(std::uint32_t) + 2 * kAllocationBytes;
  }

 private:
  const Command* command_;
  std::string bytes_;
  std::vector<std::uint32_t> ends_;
};

struct MultiState {
  bool open = false;
  bool spoiled = false;  // a command could not be queued: EXEC will refuse
  std::vector<QueuedCommand> queue;
  std::size_t queue_bytes = 0;
};

enum class ReplyMode : std::uint8_t { kOn, kOff, kSkipNext, kSkipThis };

class Client {
 public:
  Client(ServerState& state, std::shared_ptr<ClientInfo> client_info);

  // Before requests are carried out. Reads the clock by which keys expire: requests that have arrived together share one
  // reading, or what of them is done in one turn.
  void begin_turn() {
    turn_.begin();
    count_time_from_now();
    read_clock();
  }
  // What passes from here on is the next request's time (INFO's commandstats).
  void count_time_from_now() { counted_ns_ = runtime::now_ns(); }
  // Called between requests: other fibers of the core get their turn when this one's is over; true: they had it.
  bool rest(bool after_large_request) {
    if (!turn_.step(after_large_request)) return false;
    count_time_from_now();
    return true;
  }
  // Called between pieces of work, of which a request may have many: the same, and then asks whether anybody still wants
  // the rest. kAborted: no; the request is given up and what it did is undone.
  Result<> give_way(bool large = false) { return turn_.step(large) ? still_wanted() : Result<>(); }
  // The same in two, for work that first has to let go of what others wait for.
  bool turn_is_over() { return turn_.due(); }
  Result<> end_turn() {
    turn_.end();
    return still_wanted();
  }
  void read_clock() { keys.set_now_ms(wall_clock_ms()); }
  // Carries out one request and writes its reply, if it has one.
  void execute(Arguments args);
  // Answers a request that the parser refused (too large).
  void refuse(const RequestParser::Refusal& refusal);

  ParserLimits parser_limits() const;
  // Waits until what `out` tells is durable. On an engine failure every reply in `out` becomes that error.
  Result<> make_durable();

  // Bytes that its replies, queued commands and watched keys take.
  std::uint64_t buffer_bytes() const { return out.capacity() + multi.queue_bytes + watches.bytes(); }

  ServerState& server;
  const std::shared_ptr<ClientInfo> info;
  BufferBudget::Share memory;
  std::string out;
  bool closing = false;  // after `out` has been sent

  // For handlers.
  KeyAccess keys;
  WatchSet watches;
  MultiState multi;
  bool authenticated;
  std::uint32_t db = 0;
  bool resp3 = false;
  ReplyMode reply_mode = ReplyMode::kOn;
  StoredValue value, other_value;  // scratch that keeps its memory
  std::string text;                // the same

  void select(std::uint32_t index);
  void set_resp3(bool on);
  void end_multi();
  // EXEC's work: everything queued, in one transaction.
  Result<> run_queue(Reply& reply);

 private:
  // kAborted: the client has left, or its connection is being ended.
  Result<> still_wanted();
  void dispatch(Arguments args, Reply& reply);
  void enqueue(const Command& command, Arguments args, Reply& reply);
  void run(const Command& command, Arguments args, Reply& reply);
  // One attempt: the handler, in a transaction if the command wants one.
  Result<> attempt(const Command& command, Arguments args, Reply& reply);
  Result<> attempt_queue(Reply& reply, bool& refused);
  Result<> run_queued(const QueuedCommand& queued, Reply& reply);
  Result<> lock_for_queue();
  Result<bool> watched_unchanged();
  void count_call(std::string_view reply);
  void refuse_long_reply(std::size_t limit_bytes, Reply& reply);
  void shrink_scratch();

  const Command* called_ = nullptr;  // what dispatch() found; null: unknown
  bool rejected_ = false;            // and did not let run
  runtime::TimeNs counted_ns_ = 0;   // up to here time was counted; 0: never
  std::uint32_t unsent_replies_ = 0;  // in `out`
  runtime::Turn turn_;
  runtime::TimeNs looked_ns_ = 0;                     // when still_wanted() last asked the network
  runtime::TimeNs ended_since_ns_ = runtime::kNever;  // the client has sent its last byte
};

// What a handler gets.
struct Call {
  Client& client;
  ServerState& server;
  const Command& command;
  Arguments args;  // with the command's name
  Reply& reply;
  KeyAccess& keys;
  bool failed = false;

  std::uint32_t db() const { return client.db; }
  std::size_t count() const { return args.size(); }
  std::string_view arg(std::size_t i) const { return args[i]; }
  bool is(std::size_t i, std::string_view word) const;

  // Called for each of possibly many keys or options: TRY(call.give_way()).
  Result<> give_way() { return client.give_way(); }
  // The reply is this error; what the call wrote is undone.
  Result<> fail(std::string_view error);
  Result<> syntax_error() { return fail("ERR syntax error"); }
  Result<> not_an_integer() { return fail("ERR value is not an integer or out of range"); }
  Result<> wrong_arguments();
  // HELP's reply.
  Result<> lines(std::span<const std::string_view> text);
};

// The reply's error line for an engine's error.
std::string error_text(const Error& error);

// Runs `body` again while it meets a conflict, with growing pauses; kConflict only after many tries.
Result<> with_retries(ServerState& server, FunctionRef<Result<>()> body);

}  // namespace kelda::server
