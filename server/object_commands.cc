// OBJECT and MEMORY: how a key is kept.
#include "server/client.h"
#include "server/text.h"

namespace kelda::server {

namespace {

// What Redis would say of the same value, since its tools print it. Kelda keeps all of them as bytes.
Result<> encoding(Call& call) {
  if (!TRY(call.keys.get(call.db(), call.arg(2), call.client.value))) {
    call.reply.null();
    return {};
  }
  constexpr std::size_t kLongestEmbedded = 44;
  const std::string_view payload = call.client.value.payload();
  if (parse_integer(payload)) {
    call.reply.bulk("int");
  } else {
    call.reply.bulk(payload.size() <= kLongestEmbedded ? "embstr" : "raw");
  }
  return {};
}

Result<> refcount(Call& call) {
  if (!TRY(call.keys.exists(call.db(), call.arg(2)))) {
    call.reply.null();
  } else {
    call.reply.integer(1);
  }
  return {};
}

Result<> freq(Call& call) {
  return call.fail(
      "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching "
      "between policies at runtime LRU and LFU data will take some time to adjust.");
}

Result<> idletime(Call& call) {
  return call.fail("ERR Kelda does not record when a key was last used");
}

Result<> object_help(Call& call) {
  constexpr std::string_view kLines[] = {"OBJECT <subcommand> [<arg> ...], with these subcommands:",
                                         "ENCODING <key>",
                                         "    How Redis would keep the value.",
                                         "REFCOUNT <key>",
                                         "    1 for a key that exists.",
                                         "HELP",
                                         "    This text."};
  return call.lines(kLines);
}

// The bytes of key and value as they are stored; not the share of the page they lie in.
Result<> memory_usage(Call& call) {
  for (std::size_t i = 3; i < call.count(); ++i) {
    TRY(call.give_way());
    if (!call.is(i, "samples") || i + 1 >= call.count()) return call.syntax_error();
    if (!parse_integer(call.arg(++i))) return call.not_an_integer();
  }
  if (!TRY(call.keys.get(call.db(), call.arg(2), call.client.value))) {
    call.reply.null();
    return {};
  }
  call.reply.integer(static_cast<std::int64_t>(call.arg(2).size() + call.client.value.raw.size()));
  return {};
}

Result<> memory_help(Call& call) {
  constexpr std::string_view kLines[] = {
      "MEMORY <subcommand> [<arg> ...], with these subcommands:", "USAGE <key> [SAMPLES <count>]",
      "    Bytes that the key and its value take.", "HELP", "    This text."};
  return call.lines(kLines);
}

constexpr Command kObjectSubcommands[] = {
    {"object|encoding", 3, kReadonly, 2, 2, 1, encoding, "generic", "2.2.3", "How Redis would keep the value", "key"},
    {"object|refcount", 3, kReadonly, 2, 2, 1, refcount, "generic", "2.2.3", "1 for a key that exists", "key"},
    {"object|freq", 3, kReadonly, 2, 2, 1, freq, "generic", "4.0.0", "Not recorded here", "key"},
    {"object|idletime", 3, kReadonly, 2, 2, 1, idletime, "generic", "2.2.3", "Not recorded here", "key"},
    {"object|help", 2, 0, 0, 0, 0, object_help, "generic", "6.2.0", "What OBJECT can do", ""},
};

constexpr Command kMemorySubcommands[] = {
    {"memory|usage", -3, kReadonly, 2, 2, 1, memory_usage, "server", "4.0.0", "Bytes that a key and its value take",
     "key [SAMPLES count]"},
    {"memory|help", 2, 0, 0, 0, 0, memory_help, "server", "4.0.0", "What MEMORY can do", ""},
};

constexpr Command kCommands[] = {
    {"object", -2, 0, 0, 0, 0, nullptr, "generic", "2.2.3", "Commands about how a key is kept", "", kObjectSubcommands},
    {"memory", -2, 0, 0, 0, 0, nullptr, "server", "4.0.0", "Commands about memory", "", kMemorySubcommands},
};

}  // namespace

std::span<const Command> object_commands() {
  return kCommands;
}

}  // namespace kelda::server
