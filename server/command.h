// What a command is, and the table of all of them.
//
// Contract: a handler writes exactly one reply and returns success, or returns the engine's error and leaves the reply
// to the executor. It may run again from the start (the transaction met a conflict): it must have no other effect
// before it writes. To refuse a call for the user's own fault it returns call.fail("ERR ..."); the executor then undoes
// what the call wrote.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace kelda::server {

struct Call;
using Handler = Result<> (*)(Call&);

enum CommandFlag : std::uint32_t {
  kWrite = 1 << 0,     // changes keys
  kReadonly = 1 << 1,  // reads keys
  kFast = 1 << 2,      // constant or logarithmic time
  kAdmin = 1 << 3,
  kNoAuth = 1 << 4,       // allowed before AUTH
  kNoMulti = 1 << 5,      // refused between MULTI and EXEC
  kImmediate = 1 << 6,    // carried out, not queued, between MULTI and EXEC
  kTransaction = 1 << 7,  // runs in a transaction of its own when it is not part of EXEC
  kAtomicRead = 1 << 8,   // as kTransaction, when it names more than one key
  kWholeTree = 1 << 9,    // walks or empties a database, and so locks all of it
};

struct Command {
  std::string_view name;  // lower case; of a subcommand: "client|list"
  int arity;              // with the name; negative: at least
  std::uint32_t flags;
  int first_key, last_key, key_step;  // positions as COMMAND INFO gives them; 0: no keys
  Handler handler;
  std::string_view group;  // as Redis's documentation groups commands
  std::string_view since;  // the Redis version that had it first; Kelda's own: Kelda's
  std::string_view summary;
  std::string_view syntax;  // its arguments as a person writes them
  std::span<const Command> subcommands = {};

  bool arity_matches(std::size_t arguments) const {
    return arity >= 0 ? arguments == static_cast<std::size_t>(arity) : arguments >= static_cast<std::size_t>(-arity);
  }
};

class CommandTable {
 public:
  CommandTable();
  // In any letter case. Null: unknown.
  const Command* find(std::string_view name) const;
  static const Command* find_subcommand(const Command& container, std::string_view name);
  // What a request means by `command`, its first word: the command, or the subcommand that the second word names. Null:
  // there is no such subcommand.
  static const Command* meant(const Command& command, std::span<const std::string_view> request) {
    return command.subcommands.empty() || request.size() < 2 ? &command : find_subcommand(command, request[1]);
  }
  // Sorted by name.
  const std::vector<const Command*>& all() const { return all_; }

  // Commands and subcommands have numbers from 0 up, for tables about them.
  std::size_t number_of(const Command& command) const;
  const Command& numbered(std::size_t number) const { return *numbered_[number]; }
  std::size_t numbers() const { return numbered_.size(); }

 private:
  static constexpr std::size_t kSlots = 512;  // a power of two, well above the number of commands

  std::vector<const Command*> all_;
  std::vector<const Command*> slots_;  // open addressing by hash of the name
  std::vector<const Command*> numbered_;  // by address
};

// The families, each in its own file.
std::span<const Command> connection_commands();
std::span<const Command> client_commands();
std::span<const Command> string_commands();
std::span<const Command> number_commands();
std::span<const Command> range_commands();
std::span<const Command> key_commands();
std::span<const Command> scan_commands();
std::span<const Command> expire_commands();
std::span<const Command> transaction_commands();
std::span<const Command> admin_commands();
std::span<const Command> config_commands();
std::span<const Command> introspection_commands();
std::span<const Command> object_commands();
std::span<const Command> script_commands();
std::span<const Command> kelda_commands();

}  // namespace kelda::server
