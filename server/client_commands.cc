// CLIENT and its subcommands.
#include <algorithm>
#include <mutex>

#include <fmt/format.h>

#include "server/client.h"
#include "server/client_names.h"
#include "server/text.h"

namespace kelda::server {

namespace {

Result<> id(Call& call) {
  call.reply.integer(static_cast<std::int64_t>(call.client.info->id));
  return {};
}

Result<> getname(Call& call) {
  const std::scoped_lock guard(call.client.info->latch);
  const std::string& name = call.client.info->name;
  name.empty() ? call.reply.null() : call.reply.bulk(name);
  return {};
}

Result<> setname(Call& call) {
  if (const auto fault = client_name_fault(call.arg(2), "Client names"); !fault.empty()) return call.fail(fault);
  const std::scoped_lock guard(call.client.info->latch);
  call.client.info->name = call.arg(2);
  call.reply.ok();
  return {};
}

// Not in Redis 7.0, but clients of later versions send it at every connect.
Result<> setinfo(Call& call) {
  const bool is_name = call.is(2, "lib-name");
  if (!is_name && !call.is(2, "lib-ver"))
    return call.fail("ERR Unrecognized option '" + std::string(call.arg(2)) + "'");
  if (const auto fault = client_name_fault(call.arg(3), to_lower(call.arg(2))); !fault.empty()) return call.fail(fault);
  ClientInfo& info = *call.client.info;
  const std::scoped_lock guard(info.latch);
  (is_name ? info.library_name : info.library_version) = call.arg(3);
  call.reply.ok();
  return {};
}

std::string flags_of(const ClientInfo& info) {
  std::string flags;
  if (info.queued.load(std::memory_order_relaxed) >= 0) flags += 'x';
  if (info.watch_changed.load(std::memory_order_relaxed)) flags += 'd';
  if (info.no_evict.load(std::memory_order_relaxed)) flags += 'e';
  return flags.empty() ? "N" : flags;
}

// The fields of Redis 7.0 in its order, `watch` and `lib-*` of later versions among them. There is one buffer for replies
// and no list of more (oll); omem is that buffer while replies wait in it.
std::string describe(ClientInfo& info, std::int64_t now_ms) {
  const auto get = [](const auto& field) { return field.load(std::memory_order_relaxed); };
  const Command* command = get(info.last_command);
  const std::uint64_t waiting = get(info.output_bytes), capacity = get(info.reply_capacity_bytes);
  const std::scoped_lock guard(info.latch);
  std::string text = fmt::format(
      "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db={} sub=0 psub=0 ssub=0 multi={} watch={}", info.id,
      info.peer, info.local, info.descriptor, info.name, std::max<std::int64_t>(now_ms - info.connected_ms, 0) / 1000,
      std::max<std::int64_t>(now_ms - get(info.active_ms), 0) / 1000, flags_of(info), get(info.db), get(info.queued),
      get(info.watched));
  fmt::format_to(std::back_inserter(text),
                 " qbuf={} qbuf-free={} argv-mem={} multi-mem={} rbs={} rbp={} obl={} oll=0 omem={} tot-mem={}",
                 get(info.input_bytes), get(info.input_free_bytes), get(info.argument_bytes), get(info.queued_bytes),
                 capacity, get(info.reply_peak_bytes), waiting, waiting == 0 ? 0 : std::max(capacity, waiting),
                 get(info.memory_bytes));
  fmt::format_to(std::back_inserter(text), " events={} cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
                 waiting == 0 ? "r" : "rw", command == nullptr ? "NULL" : command->name, get(info.resp3) ? 3 : 2,
                 info.library_name, info.library_version);
  return text;
}

bool known_type(std::string_view type) {
  for (const std::string_view known : {"normal", "master", "replica", "slave", "pubsub"}) {
    if (equals_ignoring_case(known, type)) return true;
  }
  return false;
}

Result<> list(Call& call) {
  bool normal = true;
  std::vector<std::uint64_t> ids;
  if (call.count() == 4 && call.is(2, "type")) {
    if (!known_type(call.arg(3))) return call.fail("ERR Unknown client type '" + std::string(call.arg(3)) + "'");
    normal = call.is(3, "normal");
  } else if (call.count() > 3 && call.is(2, "id")) {
    for (const std::string_view text : call.args.subspan(3)) {
      TRY(call.give_way());
      const auto number = parse_integer(text);
      if (!number || *number < 0) return call.fail("ERR Invalid client ID");
      ids.push_back(static_cast<std::uint64_t>(*number));
    }
    std::ranges::sort(ids);
  } else if (call.count() != 2) {
    return call.syntax_error();
  }
  std::string text;
  for (const auto& info : call.server.clients.snapshot()) {
    if (!normal || (!ids.empty() && !std::ranges::binary_search(ids, info->id))) continue;
    text += describe(*info, call.keys.now_ms());
    text.push_back('\n');
    TRY(call.give_way());
  }
  call.reply.verbatim(text);
  return {};
}

Result<> info(Call& call) {
  call.reply.verbatim(describe(*call.client.info, call.keys.now_ms()) + "\n");
  return {};
}

struct KillFilter {
  std::optional<std::uint64_t> id;
  std::optional<std::string_view> address, local, user;
  bool normal = true;  // the only type there is
  bool skip_me = true;

  bool matches(const ClientInfo& candidate) const {
    return normal && (!id || candidate.id == *id) && (!address || candidate.peer == *address) &&
           (!local || candidate.local == *local) && (!user || *user == "default");
  }
};

// False: the error has been replied.
Result<bool> parse_kill(Call& call, KillFilter& filter) {
  const auto refuse = [&](std::string_view error) -> Result<bool> {
    TRY(call.fail(error));
    return false;
  };
  if (call.count() % 2 != 0) return refuse("ERR syntax error");
  for (std::size_t i = 2; i < call.count(); i += 2) {
    const std::string_view value = call.arg(i + 1);
    TRY(call.give_way());
    if (call.is(i, "id")) {
      const auto number = parse_integer(value);
      if (!number || *number < 1) return refuse("ERR client-id should be greater than 0");
      filter.id = static_cast<std::uint64_t>(*number);
    } else if (call.is(i, "type")) {
      if (!known_type(value)) return refuse("ERR Unknown client type '" + std::string(value) + "'");
      filter.normal = equals_ignoring_case(value, "normal");
    } else if (call.is(i, "addr")) {
      filter.address = value;
    } else if (call.is(i, "laddr")) {
      filter.local = value;
    } else if (call.is(i, "user")) {
      if (value != "default") return refuse("ERR No such user '" + std::string(value) + "'");
      filter.user = value;
    } else if (call.is(i, "skipme")) {
      const bool yes = equals_ignoring_case(value, "yes");
      if (!yes && !equals_ignoring_case(value, "no")) return refuse("ERR syntax error");
      filter.skip_me = yes;
    } else {
      return refuse("ERR syntax error");
    }
  }
  return true;
}

Result<> kill(Call& call) {
  KillFilter filter;
  const bool by_address = call.count() == 3;  // the old form
  if (by_address) {
    filter.address = call.arg(2);
    filter.skip_me = false;
  } else if (!TRY(parse_kill(call, filter))) {
    return {};
  }
  std::int64_t killed = 0;
  for (const auto& candidate : call.server.clients.snapshot()) {
    TRY(call.give_way());
    const bool me = candidate->id == call.client.info->id;
    if ((me && filter.skip_me) || !filter.matches(*candidate)) continue;
    ++killed;
    if (me) {
      call.client.closing = true;
    } else {
      ClientRegistry::disconnect(candidate, /*only_idle=*/false);
    }
  }
  if (!by_address) {
    call.reply.integer(killed);
  } else if (killed == 0) {
    return call.fail("ERR No such client");
  } else {
    call.reply.ok();
  }
  return {};
}

Result<> reply(Call& call) {
  if (call.is(2, "on")) {
    call.client.reply_mode = ReplyMode::kOn;
    call.reply.ok();
  } else if (call.is(2, "off")) {
    call.client.reply_mode = ReplyMode::kOff;
  } else if (call.is(2, "skip")) {
    if (call.client.reply_mode != ReplyMode::kOff) call.client.reply_mode = ReplyMode::kSkipNext;
  } else {
    return call.syntax_error();
  }
  return {};
}

// Nothing is evicted and no use is recorded, so both are granted and change nothing but what CLIENT LIST shows.
Result<> on_or_off(Call& call) {
  if (!call.is(2, "on") && !call.is(2, "off")) return call.syntax_error();
  call.reply.ok();
  return {};
}

Result<> no_evict(Call& call) {
  TRY(on_or_off(call));
  if (!call.failed) call.client.info->no_evict.store(call.is(2, "on"), std::memory_order_relaxed);
  return {};
}

Result<> tracking(Call& call) {
  if (call.is(2, "off")) {
    call.reply.ok();
    return {};
  }
  if (!call.is(2, "on")) return call.syntax_error();
  return call.fail("ERR Kelda does not track keys for client-side caching");
}

Result<> getredir(Call& call) {
  call.reply.integer(-1);
  return {};
}

Result<> unblock(Call& call) {
  if (!parse_integer(call.arg(2))) return call.not_an_integer();
  if (call.count() == 4 && !call.is(3, "timeout") && !call.is(3, "error")) {
    return call.fail("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
  }
  call.reply.integer(0);  // no command blocks
  return {};
}

Result<> help(Call& call) {
  constexpr std::string_view kLines[] = {"CLIENT <subcommand> [<arg> ...], with these subcommands:",
                                         "GETNAME",
                                         "    The name of this connection.",
                                         "ID",
                                         "    The number of this connection.",
                                         "INFO",
                                         "    A line about this connection.",
                                         "KILL <ip:port> | KILL <option> <value> [...]",
                                         "    End connections. Options: ID, ADDR, LADDR, TYPE, USER, SKIPME.",
                                         "LIST [TYPE <type> | ID <id> ...]",
                                         "    A line about each connection.",
                                         "NO-EVICT (ON|OFF), NO-TOUCH (ON|OFF)",
                                         "    Accepted; nothing is evicted here, and no use of keys recorded.",
                                         "REPLY (ON|OFF|SKIP)",
                                         "    Whether this connection gets replies.",
                                         "SETINFO (LIB-NAME|LIB-VER) <text>",
                                         "    What library this connection uses.",
                                         "SETNAME <name>",
                                         "    Name this connection.",
                                         "HELP",
                                         "    This text."};
  return call.lines(kLines);
}

constexpr Command kSubcommands[] = {
    {"client|id", 2, 0, 0, 0, 0, id, "connection", "5.0.0", "The number of this connection", ""},
    {"client|getname", 2, 0, 0, 0, 0, getname, "connection", "2.6.9", "The name of this connection", ""},
    {"client|setname", 3, 0, 0, 0, 0, setname, "connection", "2.6.9", "Name this connection", "connection-name"},
    {"client|setinfo", 4, 0, 0, 0, 0, setinfo, "connection", "7.2.0", "Say what library this connection uses",
     "LIB-NAME|LIB-VER text"},
    {"client|list", -2, kAdmin, 0, 0, 0, list, "connection", "2.4.0", "A line about each connection",
     "[TYPE type|ID client-id [client-id ...]]"},
    {"client|info", 2, 0, 0, 0, 0, info, "connection", "6.2.0", "A line about this connection", ""},
    {"client|kill", -3, kAdmin, 0, 0, 0, kill, "connection", "2.4.0", "End connections",
     "ip:port|option value [option value ...]"},
    {"client|reply", 3, 0, 0, 0, 0, reply, "connection", "3.2.0", "Choose whether this connection gets replies",
     "ON|OFF|SKIP"},
    {"client|no-evict", 3, kAdmin, 0, 0, 0, no_evict, "connection", "7.0.0", "Accepted without effect", "ON|OFF"},
    {"client|no-touch", 3, 0, 0, 0, 0, on_or_off, "connection", "7.2.0", "Accepted without effect", "ON|OFF"},
    {"client|tracking", -3, 0, 0, 0, 0, tracking, "connection", "6.0.0", "Only OFF is possible", "OFF"},
    {"client|getredir", 2, 0, 0, 0, 0, getredir, "connection", "6.0.0", "Always -1: there is no tracking", ""},
    {"client|unblock", -3, kAdmin, 0, 0, 0, unblock, "connection", "5.0.0", "Always 0: no command blocks",
     "client-id [TIMEOUT|ERROR]"},
    {"client|help", 2, 0, 0, 0, 0, help, "connection", "5.0.0", "What CLIENT can do", ""},
};

constexpr Command kCommands[] = {
    {"client", -2, 0, 0, 0, 0, nullptr, "connection", "2.4.0", "Commands about connections", "", kSubcommands},
};

}  // namespace

std::span<const Command> client_commands() {
  return kCommands;
}

}  // namespace kelda::server
