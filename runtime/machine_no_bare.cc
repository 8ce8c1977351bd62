// Stands in for machine_bare.cc in builds that cannot boot (KELDA_BARE=OFF).
#include "common/assert.h"
#include "runtime/machine_platform.h"
#include "runtime/platform_bare.h"

namespace kelda::runtime {

MachineInfo bare_machine_info() {
  KELDA_ASSERT(is_bare());
  return {};
}

void bare_set_on_stop_request(Event&) { KELDA_ASSERT(is_bare()); }

}  // namespace kelda::runtime
