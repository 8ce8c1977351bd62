#include <unistd.h>

#include <cstdlib>
#include <new>
#include <string_view>

#include "tools/commands.h"

namespace {

// The last net. Commands keep within their bound of memory; where the machine has less than that, they end with a
// sentence and a failure, not with a panic: nobody up the stack could go on without the memory, and no stack of a fiber is unwound.
[[noreturn]] void out_of_memory() {
  constexpr std::string_view kText = "kelda: out of memory: give the machine (or the process) more, or less to --memory\n";
  [[maybe_unused]] const auto written = write(STDERR_FILENO, kText.data(), kText.size());
  _exit(kelda::tools::kExitFailed);
}

}  // namespace

int main(int argc, char** argv) {
  std::set_new_handler(out_of_memory);
  return kelda::tools::run_command_line(argc, argv);
}
