// The machine around the process: what it offers, and when somebody asks it to stop.
//
// Contract: any thread. Hosted: Linux; bare: the virtual machine itself.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/sync.h"

namespace kelda::runtime {

struct MachineInfo {
  bool bare = false;
  std::string platform;             // "Linux 6.1.0", "bare on KVM", "bare on TCG", ...
  std::uint32_t cpu_count = 1;      // that this process may use
  std::uint64_t memory_bytes = 0;   // of the machine
  std::uint64_t available_bytes = 0;  // that a program may still take
  std::uint64_t resident_bytes = 0;   // that this process, or all of the machine, has taken
  std::uint64_t since_start_us = 0;   // since the process, or the machine, was started
};
MachineInfo machine_info();

// Sets `event` when the operator asks to stop: SIGINT, SIGTERM; bare, the power button. Once per process, on core 0,
// before other threads start (they inherit the blocked signals). The event must live as long as the process.
void set_on_stop_request(Event& event);

}  // namespace kelda::runtime
