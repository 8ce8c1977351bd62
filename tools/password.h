// Where the clients' password comes from, so that it need not stand on a command line, which every user of the computer
// can read (`ps`).
#pragma once

#include <string>

#include "common/result.h"
#include "tools/commands.h"

namespace kelda::tools {

// Longer ones are refused.
inline constexpr std::size_t kPasswordLimitBytes = 4096;
// The name under which `kelda vm` hands it to the machine.
inline constexpr const char* kPasswordHostFile = "opt/kelda/password";

// The first of these that is there: --password, --password-file, the environment's KELDA_PASSWORD, and in a virtual
// machine what its host handed over under kPasswordHostFile. Empty: none of them, clients need no password.
// The line end behind the password, if there is one, is no part of it. kInvalidArgument: it is empty or too long;
// kIo: the file cannot be read. Takes KELDA_PASSWORD out of the environment, so that children do not have it; call it
// before other threads start.
Result<std::string> find_password(const PasswordOptions& options);

}  // namespace kelda::tools
