// Whether this process is the booted machine itself, and its platform if so.
#pragma once

#include "runtime/backend.h"

namespace kelda::runtime {

// True when the program was entered by the boot code and not by Linux. Constant for the life of the process.
bool is_bare();
Platform& bare_platform();  // only where is_bare()

}  // namespace kelda::runtime
