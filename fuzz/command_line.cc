// The command line of `kelda` and the sizes on it: any words end in a command that is known, or in a usage error.
#include <sstream>
#include <utility>
#include <vector>

#include "common/assert.h"
#include "fuzz/fuzz_target.h"
#include "fuzz/input.h"
#include "tools/commands.h"

namespace kelda::fuzz {

namespace {

void run(Bytes bytes) {
  Input input(bytes);
  std::vector<std::string> words = {"kelda"};
  std::string word;
  for (const char c : as_view(input.rest())) {
    if (c != '\0' && c != '\n') {
      word.push_back(c);
      continue;
    }
    words.push_back(std::exchange(word, {}));
  }
  words.push_back(word);
  for (const std::string& text : words) {
    std::uint64_t size = 0;
    if (!tools::parse_size(text, size)) continue;
    std::uint64_t again = 0;
    KELDA_ASSERT(tools::parse_size(std::to_string(size), again) && again == size);
    KELDA_ASSERT(!tools::format_size(size).empty());
  }
  std::vector<char*> argv;
  for (std::string& text : words) argv.push_back(text.data());
  tools::CommandLine parsed;
  std::ostringstream out, err;
  const auto ended = tools::parse_command_line(static_cast<int>(argv.size()), argv.data(), parsed, out, err);
  KELDA_ASSERT(ended ? *ended == 0 || (*ended == tools::kExitUsage && !err.str().empty()) : !parsed.command.empty());
}

}  // namespace

const FuzzTarget kCommandLine = {"command_line", run};

}  // namespace kelda::fuzz
