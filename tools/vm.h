// `kelda vm`: the QEMU command line, and the processes around it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "blockdev/disk_claim_hosted.h"
#include "common/result.h"
#include "tools/commands.h"

namespace kelda::tools {

// What the host offers; separate from the command line so that a test can say otherwise.
struct VmHost {
  bool kvm = false;            // hardware virtualisation that is real and may be used
  bool direct_io = true;       // the disk's filesystem takes O_DIRECT
  bool block_device = false;   // the disk is one, and not a file
  bool io_uring = true;        // QEMU may use it
  std::string no_io_uring;     // else why not
  std::string self;            // path of this program
  std::string passt_socket;    // where passt listens, in the printed command
  bool monitor = false;        // there is one, for the clean power-off
  std::string password_path;   // a file with the clients' password, that QEMU hands to the guest; empty: none
};
// disk: null without one.
VmHost probe_host(const blockdev::DiskClaim* disk);

// argv of QEMU.
Result<std::vector<std::string>> qemu_command(const VmOptions& options, const VmHost& host);
// argv of passt: --net passt, and the printed command, which needs nothing of ours.
Result<std::vector<std::string>> passt_command(const VmOptions& options, const VmHost& host);
// argv of the network that this program has itself (net/user_network_hosted.h): --net user.
std::vector<std::string> user_network_command(const VmOptions& options, const VmHost& host);
// Is the guest's command a server, which runs until somebody asks it to stop?
bool guest_serves(const VmOptions& options);
// Is the guest's network carried in user space, by either?
bool in_user_space(const VmOptions& options);
// For people: quoted for a shell.
std::string shell_quoted(const std::vector<std::string>& command);

inline constexpr std::uint16_t kGuestRespPort = 6379;

}  // namespace kelda::tools
