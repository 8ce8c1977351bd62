// Child processes of `kelda vm`: started with chosen descriptors, ended with their parent.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "common/result.h"

namespace kelda::tools {

class Child {
 public:
  Child() = default;
  Child(Child&& o) noexcept : pid_(std::exchange(o.pid_, -1)) {}
  Child& operator=(Child&& o) noexcept {
    std::swap(pid_, o.pid_);
    return *this;
  }
  ~Child();  // kills and reaps it

  struct Descriptor {
    int from, to;
  };
  // Looks the program up in PATH. Its stdin is /dev/null. It is in a process group of its own, so that a terminal's
  // Ctrl-C reaches only the parent, and dies with the parent.
  static Result<Child> start(const std::vector<std::string>& argv, const std::vector<Descriptor>& descriptors);

  pid_t pid() const { return pid_; }
  void kill_now();
  // Reaps without waiting; true when it has ended, with the wait status.
  bool ended(int& status);

 private:
  pid_t pid_ = -1;
};

// True if a program of this name is in PATH.
bool in_path(const std::string& program);

}  // namespace kelda::tools
