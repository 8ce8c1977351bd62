// COMMAND and its subcommands: the table of commands, told to clients.
#include <algorithm>

#include "server/client.h"
#include "server/command_keys.h"
#include "server/command_syntax.h"
#include "server/glob.h"
#include "server/text.h"

namespace kelda::server {

namespace {

constexpr std::size_t kLongestNameBytes = 64;  // of any command

struct FlagName {
  std::uint32_t flag;
  std::string_view name, category;
};

constexpr FlagName kFlagNames[] = {
    {kWrite, "write", "@write"}, {kReadonly, "readonly", "@read"}, {kAdmin, "admin", "@admin"},
    {kNoAuth, "no_auth", ""},    {kNoMulti, "no_multi", ""},       {kFast, "fast", "@fast"},
};

std::string category_of_group(std::string_view group) {
  if (group == "generic") return "@keyspace";
  if (group == "transactions") return "@transaction";
  if (group == "server") return "@admin";
  return "@" + std::string(group);
}

void write_key_specs(const Command& command, Reply& reply) {
  if (command.first_key == 0) return reply.array(0);
  reply.array(1);
  reply.map(3);
  reply.bulk("flags");
  reply.set(1);
  reply.simple((command.flags & kWrite) != 0 ? "RW" : "RO");
  reply.bulk("begin_search");
  reply.map(2);
  reply.bulk("type");
  reply.bulk("index");
  reply.bulk("spec");
  reply.map(1);
  reply.bulk("index");
  reply.integer(command.first_key);
  reply.bulk("find_keys");
  reply.map(2);
  reply.bulk("type");
  reply.bulk("range");
  reply.bulk("spec");
  reply.map(3);
  reply.bulk("lastkey");
  // Relative to the first, unless it counts from the end.
  reply.integer(command.last_key < 0 ? command.last_key : command.last_key - command.first_key);
  reply.bulk("keystep");
  reply.integer(command.key_step);
  reply.bulk("limit");
  reply.integer(0);
}

void write_command(const Command& command, Reply& reply) {
  reply.array(10);
  reply.bulk(command.name);
  reply.integer(command.arity);
  std::vector<std::string_view> flags;
  std::vector<std::string> categories{category_of_group(command.group)};
  for (const FlagName& entry : kFlagNames) {
    if ((command.flags & entry.flag) == 0) continue;
    flags.push_back(entry.name);
    if (!entry.category.empty() && categories[0] != entry.category) categories.emplace_back(entry.category);
  }
  if ((command.flags & kFast) == 0) categories.emplace_back("@slow");
  reply.set(flags.size());
  for (const std::string_view flag : flags) reply.simple(flag);
  reply.integer(command.first_key);
  reply.integer(command.last_key);
  reply.integer(command.key_step);
  reply.set(categories.size());
  for (const std::string& category : categories) reply.simple(category);
  reply.array(0);  // tips
  write_key_specs(command, reply);
  reply.array(command.subcommands.size());
  for (const Command& subcommand : command.subcommands) write_command(subcommand, reply);
}

// "config|get" too.
const Command* find_by_full_name(const ServerState& server, std::string_view name) {
  const std::size_t bar = name.find('|');
  const Command* command = server.commands.find(name.substr(0, bar));
  if (bar == std::string_view::npos || command == nullptr) return command;
  return CommandTable::find_subcommand(*command, name.substr(bar + 1));
}

Result<> info(Call& call) {
  const bool all = call.count() <= 2;
  call.reply.array(all ? call.server.commands.all().size() : call.count() - 2);
  if (all) {
    for (const Command* command : call.server.commands.all()) write_command(*command, call.reply);
    return {};
  }
  for (const std::string_view name : call.args.subspan(2)) {
    TRY(call.give_way());
    if (call.reply.overflowed()) return {};
    const Command* command = find_by_full_name(call.server, name);
    command == nullptr ? call.reply.null() : write_command(*command, call.reply);
  }
  return {};
}

void write_docs(const Command& command, Reply& reply) {
  reply.bulk(command.name);
  const bool arguments = !command.syntax.empty();
  reply.map(3 + (arguments ? 1 : 0) + (command.subcommands.empty() ? 0 : 1));
  reply.bulk("summary");
  reply.bulk(command.summary);
  reply.bulk("since");
  reply.bulk(command.since);
  reply.bulk("group");
  reply.bulk(command.group);
  if (arguments) {
    reply.bulk("arguments");
    write_syntax(command.syntax, reply);
  }
  if (command.subcommands.empty()) return;
  reply.bulk("subcommands");
  reply.map(command.subcommands.size());
  for (const Command& subcommand : command.subcommands) write_docs(subcommand, reply);
}

Result<> docs(Call& call) {
  std::vector<const Command*> wanted;
  for (const std::string_view name : call.args.subspan(2)) {
    TRY(call.give_way());
    if (const Command* command = find_by_full_name(call.server, name)) wanted.push_back(command);
  }
  if (call.count() == 2) wanted = call.server.commands.all();
  call.reply.map(wanted.size());
  for (const Command* command : wanted) {
    write_docs(*command, call.reply);
    if (call.reply.overflowed()) return {};
    TRY(call.give_way());
  }
  return {};
}

Result<> count(Call& call) {
  call.reply.integer(static_cast<std::int64_t>(call.server.commands.all().size()));
  return {};
}

bool in_category(const Command& command, std::string_view category) {
  if (category_of_group(command.group).substr(1) == category) return true;
  if (category == "slow") return (command.flags & kFast) == 0;
  return std::ranges::any_of(kFlagNames, [&](const FlagName& entry) {
    return (command.flags & entry.flag) != 0 && !entry.category.empty() && entry.category.substr(1) == category;
  });
}

Result<> list(Call& call) {
  if (call.count() != 2 && (call.count() != 5 || !call.is(2, "filterby"))) return call.syntax_error();
  const bool filtered = call.count() == 5;
  if (filtered && !call.is(3, "pattern") && !call.is(3, "aclcat") && !call.is(3, "module")) return call.syntax_error();
  std::vector<std::string_view> names;
  GlobPattern pattern(filtered ? call.arg(4) : std::string_view(), kLongestNameBytes, true);
  for (const Command* command : call.server.commands.all()) {
    if (filtered && call.is(3, "module")) continue;  // there are none
    if (filtered && call.is(3, "pattern") && !pattern.matches(command->name)) continue;
    if (filtered && call.is(3, "aclcat") && !in_category(*command, to_lower(call.arg(4)))) continue;
    names.push_back(command->name);
  }
  call.reply.array(names.size());
  for (const std::string_view name : names) call.reply.bulk(name);
  return {};
}

Result<> getkeys(Call& call) {
  const Arguments inner = call.args.subspan(2);
  const Command* command = call.server.commands.find(inner[0]);
  if (command != nullptr) command = CommandTable::meant(*command, inner);
  if (command == nullptr) return call.fail("ERR Invalid command specified");
  if (command->first_key == 0) return call.fail("ERR The command has no key arguments");
  if (!command->arity_matches(inner.size())) return call.fail("ERR Invalid number of arguments specified for command");
  const auto keys = keys_of(*command, inner);
  call.reply.array(keys.size());
  for (const std::string_view key : keys) {
    call.reply.bulk(key);
    TRY(call.give_way());
  }
  return {};
}

Result<> help(Call& call) {
  constexpr std::string_view kLines[] = {"COMMAND <subcommand> [<arg> ...], with these subcommands:",
                                         "(no subcommand)",
                                         "    Everything about every command.",
                                         "COUNT",
                                         "    How many commands there are.",
                                         "DOCS [<command-name> ...]",
                                         "    What commands do and take.",
                                         "GETKEYS <full-command>",
                                         "    Which of a command's arguments are keys.",
                                         "INFO [<command-name> ...]",
                                         "    Arity, flags and key positions of commands.",
                                         "LIST [FILTERBY (PATTERN|ACLCAT|MODULE) <value>]",
                                         "    The names of commands.",
                                         "HELP",
                                         "    This text."};
  return call.lines(kLines);
}

constexpr Command kSubcommands[] = {
    {"command|info", -2, 0, 0, 0, 0, info, "server", "2.8.13", "Arity, flags and key positions of commands",
     "[command-name [command-name ...]]"},
    {"command|docs", -2, 0, 0, 0, 0, docs, "server", "7.0.0", "What commands do and take",
     "[command-name [command-name ...]]"},
    {"command|count", 2, kFast, 0, 0, 0, count, "server", "2.8.13", "How many commands there are", ""},
    {"command|list", -2, 0, 0, 0, 0, list, "server", "7.0.0", "The names of commands",
     "[FILTERBY MODULE|ACLCAT|PATTERN value]"},
    {"command|getkeys", -4, 0, 0, 0, 0, getkeys, "server", "2.8.13", "Which of a command's arguments are keys",
     "command [arg ...]"},
    {"command|help", 2, 0, 0, 0, 0, help, "server", "5.0.0", "What COMMAND can do", ""},
};

constexpr Command kCommands[] = {
    {"command", -1, 0, 0, 0, 0, info, "server", "2.8.13", "Everything about every command", "", kSubcommands},
};

}  // namespace

std::span<const Command> introspection_commands() {
  return kCommands;
}

}  // namespace kelda::server
