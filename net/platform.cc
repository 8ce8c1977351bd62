// The one place where the network of a process or of a machine is chosen.
#include "net/stack.h"

namespace kelda::net {

Stack& platform_stack() {
  static Stack& chosen = is_bare() ? bare_stack() : hosted_stack();
  return chosen;
}

}  // namespace kelda::net
