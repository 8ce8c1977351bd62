#include "common/assert.h"

#include <cstdio>
#include <cstdlib>

namespace kelda {

void assertion_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "kelda: assertion failed: %s at %s:%d\n", expression, file, line);
  std::abort();
}

}  // namespace kelda
