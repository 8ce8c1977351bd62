// The command dispatcher over a database in memory: any sequence of requests of two clients. Each request gets exactly
// one well-formed reply (or, where the client asked for silence, none), and what replies and queues take is bounded.
#include <array>
#include <memory>
#include <vector>

#include "common/assert.h"
#include "fuzz/fuzz_target.h"
#include "fuzz/input.h"
#include "fuzz/reply_reader.h"
#include "server/client.h"
#include "server/text.h"
#include "tests/support/memory_database.h"

namespace kelda::fuzz {

namespace {

using server::Client;
using server::ServerState;

constexpr std::uint64_t kOutputLimit = 64_KiB, kRequestLimit = 64_KiB;
// What may be written after the limit was passed, before anybody looks: headers without their bulks, and an error.
constexpr std::uint64_t kSlackBytes = 64_KiB;
constexpr unsigned kMaxRequests = 200;

// Words that commands give a meaning to. An input picks them by number.
constexpr std::string_view kWords[] = {
    "a", "b", "c", "ab", "key:1", "key:2", "", "0", "1", "-1", "2", "10", "100", "3.5", "-0.5", "1e3", "inf", "nan",
    "9223372036854775807", "-9223372036854775808", "9223372036854775808", "1048560", "4294967295", "*", "a*", "k?y:[0-9]",
    "[^a]", "\\", "**************b", "EX", "PX", "EXAT", "PXAT", "KEEPTTL", "PERSIST", "NX", "XX", "GT", "LT", "GET", "MATCH",
    "COUNT", "TYPE", "string", "REPLACE", "DB", "ASYNC", "SYNC", "LIMIT", "ON", "OFF", "SKIP", "ID", "ADDR", "LADDR", "USER",
    "SKIPME", "yes", "no", "normal", "default", "LIB-NAME", "LIB-VER", "SETNAME", "AUTH", "3", "4", "maxclients", "timeout",
    "requirepass", "all", "everything", "keyspace", "BY", "FILTERBY", "PATTERN", "ACLCAT", "MODULE", "get", "set",
    "config|get", "SAMPLES", "REV", "VALUES", "NOVALUES", "\xff\xff", "x y\r\n", "TIMEOUT", "ERROR", "NOSAVE", "SAVE"};

// The names of all commands, with their subcommands, as words of a request.
std::vector<std::vector<std::string>> all_names(const ServerState& state) {
  std::vector<std::vector<std::string>> names;
  for (const server::Command* command : state.commands.all()) {
    names.push_back({std::string(command->name)});
    for (const server::Command& sub : command->subcommands) {
      names.push_back({std::string(command->name), std::string(sub.name.substr(sub.name.find('|') + 1))});
    }
  }
  return names;
}

// One request: {command u8 (255: none), arguments u8, each: word u8, or 255 and a text}.
std::vector<std::string> next_request(const std::vector<std::vector<std::string>>& names, Input& input) {
  std::vector<std::string> request;
  if (const std::uint8_t name = input.byte(); name != 255) request = names[name % names.size()];
  for (unsigned count = input.byte() % 12; count > 0; --count) {
    const std::uint8_t word = input.byte();
    request.push_back(word == 255 ? input.text() : std::string(kWords[word % std::size(kWords)]));
  }
  if (request.empty()) request.push_back(input.text());
  return request;
}

class Session {
 public:
  explicit Session(ServerState& state) : client_(state, std::make_shared<server::ClientInfo>()) {
    KELDA_ASSERT(state.clients.add(client_.info, 10));
  }
  ~Session() { client_.server.clients.remove(*client_.info); }

  void request(const std::vector<std::string>& words) {
    if (client_.closing) return;
    const std::vector<std::string_view> args(words.begin(), words.end());
    client_.read_clock();
    client_.execute(args);
    KELDA_ASSERT(!client_.keys.in_transaction());
    KELDA_ASSERT(client_.out.size() <= kOutputLimit + kSlackBytes);
    KELDA_ASSERT(client_.multi.queue_bytes <= kRequestLimit + kSlackBytes);
    const auto durable = client_.make_durable();
    KELDA_ASSERT(durable.has_value());
    const auto replies = count_replies(client_.out);
    KELDA_ASSERT(replies.has_value() && *replies <= 1);
    KELDA_ASSERT(*replies == 1 || client_.closing || client_.reply_mode != server::ReplyMode::kOn || silent_);
    silent_ = client_.reply_mode != server::ReplyMode::kOn;
    client_.out.clear();
  }

 private:
  Client client_;
  bool silent_ = false;  // the request before turned replies off
};

void run(Bytes bytes) {
  testing::MemoryDatabase database;
  server::ServerOptions options;
  options.request_limit_bytes = kRequestLimit;
  options.output_limit_bytes = kOutputLimit;
  ServerState state(database, options);
  KELDA_ASSERT(state.keyspace.open().has_value());
  const auto names = all_names(state);
  std::array<std::unique_ptr<Session>, 2> sessions = {std::make_unique<Session>(state), std::make_unique<Session>(state)};
  Input input(bytes);
  for (unsigned i = 0; i < kMaxRequests && !input.empty(); ++i) {
    sessions[input.byte() % sessions.size()]->request(next_request(names, input));
  }
  sessions = {};
  state.background.wait();
  KELDA_ASSERT(!state.watches.active());
}

}  // namespace

const FuzzTarget kCommands = {"commands", run};

}  // namespace kelda::fuzz
