// The machine around the process: what it offers, and when somebody asks it to stop.
//
// Contract: any thread. Hosted: Linux; bare: the virtual machine itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/result.h"
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

// Sets `event` when the operator asks to stop: SIGINT, SIGTERM, SIGQUIT, and SIGHUP unless it was ignored at the start
// (nohup); bare, the power button. Once per process, on core 0,
// before other threads start (they inherit the blocked signals). The event must live as long as the process.
void set_on_stop_request(Event& event);

// A small file that the host handed to the virtual machine under this name (QEMU: `-fw_cfg name=NAME,file=F`). Nothing: it
// handed over none; hosted, there is no such host. kInvalidArgument: it is longer than the limit. One caller at a time.
Result<std::optional<std::string>> host_file(const std::string& name, std::size_t limit_bytes);

}  // namespace kelda::runtime
