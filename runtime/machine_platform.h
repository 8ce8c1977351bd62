// The two sides of machine.h.
#pragma once

#include "runtime/machine.h"

namespace kelda::runtime {

MachineInfo hosted_machine_info();
void hosted_set_on_stop_request(Event& event);

MachineInfo bare_machine_info();  // only where is_bare()
void bare_set_on_stop_request(Event& event);
Result<std::optional<std::string>> bare_host_file(const std::string& name, std::size_t limit_bytes);

}  // namespace kelda::runtime
