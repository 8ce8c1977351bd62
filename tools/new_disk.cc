#include "tools/new_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "runtime/machine.h"

namespace kelda::tools {

NewDisk::NewDisk(std::string path)
    : path_(std::move(path)),
      may_remove_(!path_.empty() && !runtime::machine_info().bare && access(path_.c_str(), F_OK) != 0 && errno == ENOENT) {}

NewDisk::~NewDisk() {
  if (!may_remove_) return;
  const int fd = open(path_.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return;
  struct stat what;
  const bool is_file = fstat(fd, &what) == 0 && S_ISREG(what.st_mode);
  if (is_file && lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO) unlink(path_.c_str());
  close(fd);
}

}  // namespace kelda::tools
