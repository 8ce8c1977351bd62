#include "tools/password.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "runtime/machine.h"

namespace kelda::tools {

namespace {

constexpr const char* kVariable = "KELDA_PASSWORD";

Result<std::string> read_password_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const char* hint = runtime::machine_info().bare ? " (a virtual machine has no files: give it to `kelda vm` instead)" : "";
    return Error(Code::kIo, "--password-file " + path + ": " + std::strerror(errno) + hint);
  }
  std::string text;
  char piece[512];
  ssize_t n = 0;
  // A pipe gives it in pieces. Two bytes more than the limit for a line end.
  while (text.size() <= kPasswordLimitBytes + 2) {
    n = read(fd, piece, sizeof piece);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text.append(piece, static_cast<std::size_t>(n));
  }
  const int error = errno;
  close(fd);
  if (n < 0) return Error(Code::kIo, "--password-file " + path + ": " + std::strerror(error));
  return text;
}

Result<std::string> checked(std::string text, const std::string& from) {
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  if (text.empty()) return Error(Code::kInvalidArgument, from + " has an empty password: put one there, or leave it away");
  if (text.size() > kPasswordLimitBytes) {
    return Error(Code::kInvalidArgument, from + " has a password of more than " + std::to_string(kPasswordLimitBytes) +
                                             " bytes: choose a shorter one");
  }
  return text;
}

}  // namespace

Result<std::string> find_password(const PasswordOptions& options) {
  std::optional<std::string> variable;
  if (const char* value = std::getenv(kVariable)) variable = value;
  unsetenv(kVariable);
  if (options.text) {
    if (options.text->empty()) return Error(Code::kInvalidArgument, "--password is empty: give one, or leave it away");
    return *options.text;
  }
  if (options.file) return checked(TRY(read_password_file(*options.file)), "--password-file " + *options.file);
  if (variable) return checked(std::move(*variable), std::string("the environment's ") + kVariable);
  const auto handed = TRY(runtime::host_file(kPasswordHostFile, kPasswordLimitBytes + 2));
  if (handed) return checked(*handed, std::string("the host's file ") + kPasswordHostFile);
  return std::string();
}

}  // namespace kelda::tools
