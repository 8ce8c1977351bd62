#include <cstdio>

#include "tools/commands.h"

namespace kelda::tools {

int version() {
  std::printf("kelda %s\n", KELDA_VERSION);
  return 0;
}

}  // namespace kelda::tools

int main(int argc, char** argv) { return kelda::tools::run_command_line(argc, argv); }
