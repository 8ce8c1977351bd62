#include "tools/child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>

namespace kelda::tools {

bool in_path(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "/usr/bin:/bin");
  std::string folder;
  while (std::getline(folders, folder, ':')) {
    if (access((folder + "/" + program).c_str(), X_OK) == 0) return true;
  }
  return false;
}

namespace {

// In the child, between fork and exec: only calls that are safe there.
[[noreturn]] void become(char* const* argv, std::vector<Child::Descriptor>& descriptors, pid_t parent) {
  // Out of the way of one another first.
  constexpr int kAboveAll = 64;
  for (auto& d : descriptors) d.from = fcntl(d.from, F_DUPFD_CLOEXEC, kAboveAll);

  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);  // ours is to ignore it, which is inherited
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);  // it died before the line above
  const int null_fd = open("/dev/null", O_RDWR);
  if (null_fd >= 0) dup2(null_fd, STDIN_FILENO);
  for (const auto& d : descriptors) dup2(d.from, d.to);
  execvp(argv[0], argv);
  _exit(127);
}

}  // namespace

Result<Child> Child::start(const std::vector<std::string>& argv, const std::vector<Descriptor>& descriptors) {
  std::vector<char*> words;
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  std::vector<Descriptor> mine = descriptors;
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return Error(Code::kOutOfMemory, std::string("cannot start ") + argv[0] + ": " + std::strerror(errno));
  if (pid == 0) become(words.data(), mine, parent);
  Child child;
  child.pid_ = pid;
  return child;
}

void Child::kill_now() {
  if (pid_ > 0) kill(pid_, SIGKILL);
}

bool Child::ended(int& status) {
  if (pid_ <= 0) return true;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return false;
  pid_ = -1;
  return true;
}

Child::~Child() {
  if (pid_ <= 0) return;
  kill_now();
  int status;
  waitpid(pid_, &status, 0);
}

}  // namespace kelda::tools
