// FUNCTION SCRIPT DEBUG: what programs ask first. Kelda runs no scripts and no functions, so there are none to list, to
// flush or to stop, and what would make one is refused.
#include "server/client.h"

namespace kelda::server {

namespace {

Result<> flush(Call& call, std::string_view refusal) {
  if (call.count() == 3 && !call.is(2, "sync") && !call.is(2, "async")) return call.fail(refusal);
  call.reply.ok();
  return {};
}

Result<> function_flush(Call& call) {
  if (call.count() > 3) {
    return call.fail("ERR unknown subcommand or wrong number of arguments for 'FLUSH'. Try FUNCTION HELP.");
  }
  return flush(call, "ERR FUNCTION FLUSH only supports SYNC|ASYNC option");
}

Result<> script_flush(Call& call) {
  if (call.count() > 3) return call.fail("ERR SCRIPT FLUSH only support SYNC|ASYNC option");
  return flush(call, "ERR SCRIPT FLUSH only support SYNC|ASYNC option");
}

Result<> function_list(Call& call) {
  bool with_code = false, with_name = false;
  for (std::size_t i = 2; i < call.count(); ++i) {
    TRY(call.give_way());
    if (!with_code && call.is(i, "withcode")) {
      with_code = true;
    } else if (!with_name && call.is(i, "libraryname")) {
      if (++i == call.count()) return call.fail("ERR library name argument was not given");
      with_name = true;
    } else {
      return call.fail("ERR Unknown argument " + std::string(call.arg(i).substr(0, 128)));
    }
  }
  call.reply.array(0);
  return {};
}

// No engine that could run a function.
Result<> function_stats(Call& call) {
  call.reply.map(2);
  call.reply.bulk("running_script");
  call.reply.null();
  call.reply.bulk("engines");
  call.reply.map(0);
  return {};
}

Result<> function_delete(Call& call) {
  return call.fail("ERR Library not found");
}

Result<> none_runs(Call& call) {
  return call.fail("NOTBUSY No scripts in execution right now.");
}

Result<> script_exists(Call& call) {
  call.reply.array(call.count() - 2);
  for (std::size_t i = 2; i < call.count(); ++i) {
    call.reply.integer(0);
    TRY(call.give_way());
  }
  return {};
}

Result<> refuse(Call& call) {
  return call.fail("ERR Kelda runs no scripts and no functions");
}

Result<> debug(Call& call) {
  return call.fail("ERR DEBUG command not allowed. Kelda has none of its subcommands");
}

Result<> function_help(Call& call) {
  constexpr std::string_view kLines[] = {"FUNCTION <subcommand> [<arg> ...], with these subcommands:",
                                         "DELETE <library>",
                                         "    Refused: there are no libraries.",
                                         "FLUSH [SYNC|ASYNC]",
                                         "    Done at once: there are no libraries.",
                                         "KILL",
                                         "    Refused: no function runs.",
                                         "LIST [LIBRARYNAME <pattern>] [WITHCODE]",
                                         "    The libraries: none.",
                                         "LOAD [REPLACE] <code>",
                                         "    Refused: Kelda runs no functions.",
                                         "STATS",
                                         "    What runs, and what could: nothing.",
                                         "HELP",
                                         "    This text."};
  return call.lines(kLines);
}

Result<> script_help(Call& call) {
  constexpr std::string_view kLines[] = {"SCRIPT <subcommand> [<arg> ...], with these subcommands:",
                                         "EXISTS <sha1> ...",
                                         "    Which scripts are kept: none.",
                                         "FLUSH [SYNC|ASYNC]",
                                         "    Done at once: no scripts are kept.",
                                         "KILL",
                                         "    Refused: no script runs.",
                                         "LOAD <script>",
                                         "    Refused: Kelda runs no scripts.",
                                         "HELP",
                                         "    This text."};
  return call.lines(kLines);
}

constexpr Command kFunction[] = {
    {"function|delete", 3, 0, 0, 0, 0, function_delete, "scripting", "7.0.0", "Refused: there are no libraries",
     "library-name"},
    {"function|flush", -2, 0, 0, 0, 0, function_flush, "scripting", "7.0.0", "Remove all libraries, of which there are none",
     "[ASYNC|SYNC]"},
    {"function|kill", 2, 0, 0, 0, 0, none_runs, "scripting", "7.0.0", "Refused: no function runs", ""},
    {"function|list", -2, 0, 0, 0, 0, function_list, "scripting", "7.0.0", "The libraries: none",
     "[LIBRARYNAME library-name-pattern] [WITHCODE]"},
    {"function|load", -3, 0, 0, 0, 0, refuse, "scripting", "7.0.0", "Refused: Kelda runs no functions",
     "[REPLACE] function-code"},
    {"function|stats", 2, 0, 0, 0, 0, function_stats, "scripting", "7.0.0", "Which function runs: none", ""},
    {"function|help", 2, 0, 0, 0, 0, function_help, "scripting", "7.0.0", "What FUNCTION can do", ""},
};

constexpr Command kScript[] = {
    {"script|exists", -3, 0, 0, 0, 0, script_exists, "scripting", "2.6.0", "Which scripts are kept: none",
     "sha1 [sha1 ...]"},
    {"script|flush", -2, 0, 0, 0, 0, script_flush, "scripting", "2.6.0", "Forget all scripts, of which there are none",
     "[ASYNC|SYNC]"},
    {"script|kill", 2, 0, 0, 0, 0, none_runs, "scripting", "2.6.0", "Refused: no script runs", ""},
    {"script|load", 3, 0, 0, 0, 0, refuse, "scripting", "2.6.0", "Refused: Kelda runs no scripts", "script"},
    {"script|help", 2, 0, 0, 0, 0, script_help, "scripting", "5.0.0", "What SCRIPT can do", ""},
};

constexpr Command kCommands[] = {
    {"function", -2, 0, 0, 0, 0, nullptr, "scripting", "7.0.0", "Commands about functions, of which there are none", "",
     kFunction},
    {"script", -2, 0, 0, 0, 0, nullptr, "scripting", "2.6.0", "Commands about scripts, of which there are none", "", kScript},
    {"debug", -2, kAdmin, 0, 0, 0, debug, "server", "1.0.0", "Refused: there is nothing of it", "subcommand [arg ...]"},
};

}  // namespace

std::span<const Command> script_commands() {
  return kCommands;
}

}  // namespace kelda::server
