// Stands in for platform_bare.cc in builds that cannot boot (KELDA_BARE=OFF: sanitizers, embedding).
#include "common/assert.h"
#include "runtime/platform_bare.h"

namespace kelda::runtime {

bool is_bare() { return false; }

Platform& bare_platform() {
  KELDA_ASSERT(is_bare());
  return hosted_platform();
}

}  // namespace kelda::runtime
