// Built without the kernel: this program only ever runs as a process.
#include "net/stack.h"

namespace kelda::net {

Stack& platform_stack() { return hosted_stack(); }

}  // namespace kelda::net
