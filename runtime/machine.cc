#include "runtime/machine.h"

#include "runtime/machine_platform.h"
#include "runtime/platform_bare.h"

namespace kelda::runtime {

MachineInfo machine_info() { return is_bare() ? bare_machine_info() : hosted_machine_info(); }

void set_on_stop_request(Event& event) {
  is_bare() ? bare_set_on_stop_request(event) : hosted_set_on_stop_request(event);
}

Result<std::optional<std::string>> host_file(const std::string& name, std::size_t limit_bytes) {
  if (!is_bare()) return std::optional<std::string>();
  return bare_host_file(name, limit_bytes);
}

}  // namespace kelda::runtime
