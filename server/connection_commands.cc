// PING ECHO QUIT RESET HELLO AUTH SELECT.
#include <mutex>

#include "server/client.h"
#include "server/client_names.h"
#include "server/command_keys.h"
#include "server/text.h"

namespace kelda::server {

namespace {

Result<> ping(Call& call) {
  if (call.count() > 2) return call.wrong_arguments();
  call.count() == 2 ? call.reply.bulk(call.arg(1)) : call.reply.simple("PONG");
  return {};
}

Result<> echo(Call& call) {
  call.reply.bulk(call.arg(1));
  return {};
}

Result<> quit(Call& call) {
  call.reply.ok();
  call.client.closing = true;
  return {};
}

Result<> reset(Call& call) {
  Client& client = call.client;
  client.end_multi();
  client.watches.clear();
  client.info->watched.store(0, std::memory_order_relaxed);
  client.select(0);
  client.set_resp3(false);
  client.authenticated = !call.server.config.password_required();
  client.reply_mode = ReplyMode::kOn;
  {
    const std::scoped_lock guard(client.info->latch);
    client.info->name.clear();
  }
  call.reply.simple("RESET");
  return {};
}

constexpr std::string_view kWrongPassword = "WRONGPASS invalid username-password pair or user is disabled.";

// There is one user, "default", as in a Redis without ACL rules.
bool log_in(Call& call, std::string_view user, std::string_view password) {
  LiveConfig& config = call.server.config;
  if (user != "default") return false;
  if (config.password_required() && !config.password_matches(password)) return false;
  call.client.authenticated = true;
  return true;
}

Result<> auth(Call& call) {
  if (call.count() > 3) return call.syntax_error();
  if (call.count() == 2 && !call.server.config.password_required()) {
    return call.fail(
        "ERR AUTH <password> called without any password configured for the default user. Are you sure your "
        "configuration "
        "is correct?");
  }
  const bool with_user = call.count() == 3;
  if (!log_in(call, with_user ? call.arg(1) : "default", call.arg(with_user ? 2 : 1))) return call.fail(kWrongPassword);
  call.reply.ok();
  return {};
}

void hello_reply(Call& call) {
  Reply& reply = call.reply;
  reply.map(7);
  reply.bulk("server");
  // What clients compare with to know the protocol; INFO's kelda_version says what this is.
  reply.bulk("redis");
  reply.bulk("version");
  reply.bulk(kRedisVersion);
  reply.bulk("proto");
  reply.integer(reply.resp3() ? 3 : 2);
  reply.bulk("id");
  reply.integer(static_cast<std::int64_t>(call.client.info->id));
  reply.bulk("mode");
  reply.bulk("standalone");
  reply.bulk("role");
  reply.bulk("master");
  reply.bulk("modules");
  reply.array(0);
}

Result<> hello(Call& call) {
  std::int64_t version = call.reply.resp3() ? 3 : 2;
  if (call.count() > 1) {
    const auto number = parse_integer(call.arg(1));
    if (!number) return call.fail("ERR Protocol version is not an integer or out of range");
    if (*number < 2 || *number > 3) return call.fail("NOPROTO unsupported protocol version");
    version = *number;
  }
  std::string_view name, user, password;
  bool with_auth = false, with_name = false;
  for (std::size_t i = 2; i < call.count(); ++i) {
    const std::size_t more = call.count() - 1 - i;
    TRY(call.give_way());
    if (call.is(i, "auth") && more >= 2) {
      user = call.arg(i + 1);
      password = call.arg(i + 2);
      with_auth = true;
      i += 2;
    } else if (call.is(i, "setname") && more >= 1) {
      name = call.arg(++i);
      with_name = true;
      if (const auto fault = client_name_fault(name, "Client names"); !fault.empty()) return call.fail(fault);
    } else {
      return call.fail("ERR Syntax error in HELLO option '" + std::string(call.arg(i)) + "'");
    }
  }
  if (with_auth && !log_in(call, user, password)) return call.fail(kWrongPassword);
  if (!call.client.authenticated) {
    return call.fail(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> "
        "<pass> "
        "option can be used to authenticate the client and select the RESP protocol version at the same time");
  }
  if (with_name) {
    const std::scoped_lock guard(call.client.info->latch);
    call.client.info->name = name;
  }
  call.client.set_resp3(version == 3);
  call.reply.set_resp3(version == 3);
  hello_reply(call);
  return {};
}

Result<> select(Call& call) {
  if (!parse_integer(call.arg(1))) return call.not_an_integer();
  const auto index = database_index(call.arg(1));
  if (!index) return call.fail("ERR DB index is out of range");
  call.client.select(*index);
  call.reply.ok();
  return {};
}

constexpr Command kCommands[] = {
    {"ping", -1, kFast, 0, 0, 0, ping, "connection", "1.0.0", "Answer PONG, or the message", "[message]"},
    {"echo", 2, kFast, 0, 0, 0, echo, "connection", "1.0.0", "Answer the message", "message"},
    {"quit", -1, kFast | kNoAuth | kImmediate, 0, 0, 0, quit, "connection", "1.0.0", "End the connection", ""},
    {"reset", 1, kFast | kNoAuth | kImmediate, 0, 0, 0, reset, "connection", "6.2.0",
     "Bring the connection back to its first state", ""},
    {"hello", -1, kFast | kNoAuth | kNoMulti, 0, 0, 0, hello, "connection", "6.0.0",
     "Choose the protocol version, log in and say who connects",
     "[protover [AUTH username password] [SETNAME clientname]]"},
    {"auth", -2, kFast | kNoAuth, 0, 0, 0, auth, "connection", "1.0.0", "Log in", "[username] password"},
    {"select", 2, kFast, 0, 0, 0, select, "connection", "1.0.0", "Use another of the numbered databases", "index"},
};

}  // namespace

std::span<const Command> connection_commands() {
  return kCommands;
}

}  // namespace kelda::server
