// CONFIG GET SET RESETSTAT REWRITE HELP. Names that clients ask for are answered with what is true of Kelda in Redis's
// terms; what cannot be changed while it runs says so.
#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "server/client.h"
#include "server/glob.h"
#include "server/text.h"

namespace kelda::server {

namespace {

struct Parameter {
  std::string_view name;
  std::string (*get)(ServerState& server);
  // False: not a value for it. Null: fixed.
  bool (*set)(ServerState& server, std::string_view value);
};

std::string text_of(std::uint64_t number) {
  return std::to_string(number);
}
std::string host_of(const std::string& address) {
  return address.substr(0, address.rfind(':'));
}
std::string port_of(const std::string& address) {
  return address.substr(address.rfind(':') + 1);
}

template <std::atomic<std::uint32_t> LiveConfig::*member, std::uint32_t lowest>
bool set_number(ServerState& server, std::string_view value) {
  const auto number = parse_integer(value);
  if (!number || *number < lowest || *number > INT32_MAX) return false;
  (server.config.*member).store(static_cast<std::uint32_t>(*number), std::memory_order_relaxed);
  return true;
}

bool set_password(ServerState& server, std::string_view value) {
  server.config.set_password(value);
  return true;
}

constexpr std::size_t kLongestNameBytes = 64;  // of any parameter

constexpr Parameter kParameters[] = {
    // Every reply waits for the log: Redis would call this appendfsync always. There are no snapshots ("save").
    {"appendonly", [](ServerState&) -> std::string { return "yes"; }, nullptr},
    {"appendfsync",
     [](ServerState& s) -> std::string { return s.options.durability == DurabilityMode::kFlush ? "always" : "no"; },
     nullptr},
    {"bind", [](ServerState& s) { return host_of(s.listen_address); }, nullptr},
    // A longer reply becomes an error; the second limit, over a time, is the write time-out's.
    {"client-output-buffer-limit",
     [](ServerState& s) { return "normal " + text_of(s.options.output_limit_bytes) + " 0 " + text_of(s.options.write_timeout_s); },
     nullptr},
    {"client-query-buffer-limit", [](ServerState& s) { return text_of(s.options.request_limit_bytes); }, nullptr},
    {"databases", [](ServerState&) { return text_of(kDatabaseCount); }, nullptr},
    {"io-threads", [](ServerState& s) { return text_of(s.core_count()); }, nullptr},
    {"maxclients", [](ServerState& s) { return text_of(s.config.max_clients); },
     set_number<&LiveConfig::max_clients, 1>},
    {"maxmemory", [](ServerState& s) { return text_of(s.options.memory_bytes); }, nullptr},
    {"maxmemory-clients", [](ServerState& s) { return text_of(s.options.buffer_limit_bytes); }, nullptr},
    {"maxmemory-policy", [](ServerState&) -> std::string { return "noeviction"; }, nullptr},
    {"port", [](ServerState& s) { return port_of(s.listen_address); }, nullptr},
    // Longer bulks end the connection; what a key holds is bounded by kMaxValueBytes.
    {"proto-max-bulk-len", [](ServerState&) { return text_of(kMaxBulkBytes); }, nullptr},
    {"requirepass", [](ServerState& s) { return s.config.password(); }, set_password},
    {"save", [](ServerState&) -> std::string { return ""; }, nullptr},
    {"tcp-keepalive", [](ServerState& s) { return text_of(s.options.tcp_keepalive_s); }, nullptr},
    {"timeout", [](ServerState& s) { return text_of(s.config.idle_timeout_s); },
     set_number<&LiveConfig::idle_timeout_s, 0>},
};

struct FoundParameter {
  std::string_view name;  // as it was asked for, if it was named in full
  const Parameter* parameter = nullptr;
};

Result<> config_get(Call& call) {
  std::array<FoundParameter, std::size(kParameters)> found{};
  for (const std::string_view text : call.args.subspan(2)) {
    TRY(call.give_way());
    GlobPattern pattern(text, kLongestNameBytes, true);
    for (std::size_t i = 0; i < found.size(); ++i) {
      const std::string_view name = kParameters[i].name;
      if (found[i].parameter != nullptr || !pattern.matches(name)) continue;
      found[i] = {equals_ignoring_case(text, name) ? text : name, &kParameters[i]};
    }
  }
  const auto known = [](const FoundParameter& entry) { return entry.parameter != nullptr; };
  call.reply.map(static_cast<std::size_t>(std::ranges::count_if(found, known)));
  for (const FoundParameter& entry : found) {
    if (!known(entry)) continue;
    call.reply.bulk(entry.name);
    call.reply.bulk(entry.parameter->get(call.server));
  }
  return {};
}

const Parameter* find_parameter(std::string_view name) {
  const auto found =
      std::ranges::find_if(kParameters, [&](const Parameter& p) { return equals_ignoring_case(p.name, name); });
  return found == std::end(kParameters) ? nullptr : found;
}

std::string set_failed(std::string_view name, std::string_view why) {
  return "ERR CONFIG SET failed (possibly related to argument '" + std::string(name) + "') - " + std::string(why);
}

Result<> config_set(Call& call) {
  if (call.count() % 2 != 0) return call.syntax_error();
  // All are known to be changeable before the first is changed.
  for (std::size_t i = 2; i < call.count(); i += 2) {
    TRY(call.give_way());
    const Parameter* parameter = find_parameter(call.arg(i));
    if (parameter == nullptr) {
      return call.fail("ERR Unknown option or number of arguments for CONFIG SET - '" + std::string(call.arg(i)) + "'");
    }
    if (parameter->set == nullptr && parameter->get(call.server) != call.arg(i + 1)) {
      return call.fail(set_failed(parameter->name, "can't set immutable config"));
    }
  }
  for (std::size_t i = 2; i < call.count(); i += 2) {
    TRY(call.give_way());
    const Parameter* parameter = find_parameter(call.arg(i));
    if (parameter->set == nullptr) continue;  // to what it is
    if (!parameter->set(call.server, call.arg(i + 1))) {
      return call.fail(set_failed(parameter->name, "argument must be a number within its range"));
    }
  }
  call.reply.ok();
  return {};
}

Result<> config_resetstat(Call& call) {
  call.server.stats.reset();
  call.server.command_stats.reset();
  call.reply.ok();
  return {};
}

Result<> config_rewrite(Call& call) {
  return call.fail("ERR The server is running without a config file");
}

Result<> config_help(Call& call) {
  constexpr std::string_view kLines[] = {"CONFIG <subcommand> [<arg> ...], with these subcommands:",
                                         "GET <pattern> ...",
                                         "    The parameters whose names match, with their values.",
                                         "SET <name> <value> ...",
                                         "    Change parameters until the server ends.",
                                         "RESETSTAT",
                                         "    Let INFO count from zero again.",
                                         "HELP",
                                         "    This text."};
  return call.lines(kLines);
}

constexpr Command kSubcommands[] = {
    {"config|get", -3, kAdmin, 0, 0, 0, config_get, "server", "2.0.0", "Read parameters", "parameter [parameter ...]"},
    {"config|set", -4, kAdmin, 0, 0, 0, config_set, "server", "2.0.0", "Change parameters until the server ends",
     "parameter value [parameter value ...]"},
    {"config|resetstat", 2, kAdmin, 0, 0, 0, config_resetstat, "server", "2.0.0", "Let INFO count from zero again", ""},
    {"config|rewrite", 2, kAdmin, 0, 0, 0, config_rewrite, "server", "2.8.0",
     "There is no configuration file to rewrite", ""},
    {"config|help", 2, 0, 0, 0, 0, config_help, "server", "5.0.0", "What CONFIG can do", ""},
};

constexpr Command kCommands[] = {
    {"config", -2, kAdmin, 0, 0, 0, nullptr, "server", "2.0.0", "Commands about parameters", "", kSubcommands},
};

}  // namespace

std::span<const Command> config_commands() {
  return kCommands;
}

}  // namespace kelda::server
