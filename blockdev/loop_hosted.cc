#include "blockdev/loop_hosted.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace kelda::blockdev {

namespace {

namespace fs = std::filesystem;
constexpr std::uint64_t kSysfsSectorBytes = 512;  // whatever the device's own

std::uint64_t number_in(const fs::path& attribute) {
  std::ifstream in(attribute);
  std::uint64_t number = 0;
  in >> number;
  return number;
}

// Empty when the device has none. A name may have line ends of its own; the last one is the kernel's.
std::string backing_file(const fs::path& device) {
  std::ifstream in(device / "loop" / "backing_file", std::ios::binary);
  std::string name{std::istreambuf_iterator<char>(in), {}};
  if (name.ends_with('\n')) name.pop_back();
  return name;
}

Window window_of(const fs::path& device) {
  Window window;
  window.offset_bytes = number_in(device / "loop" / "offset");
  if (const std::uint64_t limit = number_in(device / "loop" / "sizelimit"); limit != 0) window.length_bytes = limit;
  return window;
}

// Asked of the loop device itself where it may be opened; else of the name that the kernel gives, which another mount
// namespace may understand differently.
bool shows(const fs::path& device, const std::string& file, const struct stat& what) {
  const bool is_disk = S_ISBLK(what.st_mode);
  const int fd = open(("/dev/" + device.filename().string()).c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd >= 0) {
    loop_info64 info{};
    const bool known = ioctl(fd, LOOP_GET_STATUS64, &info) == 0;
    close(fd);
    if (!known) return false;  // detached since
    return is_disk ? info.lo_rdevice == what.st_rdev : info.lo_device == what.st_dev && info.lo_inode == what.st_ino;
  }
  struct stat named;
  if (stat(file.c_str(), &named) != 0) return false;
  return is_disk ? S_ISBLK(named.st_mode) && named.st_rdev == what.st_rdev
                 : named.st_dev == what.st_dev && named.st_ino == what.st_ino;
}

}  // namespace

std::optional<LoopBelow> below_loop(int fd, dev_t number) {
  std::error_code none;
  fs::path device = fs::canonical("/sys/dev/block/" + std::to_string(major(number)) + ":" + std::to_string(minor(number)), none);
  if (none) return std::nullopt;
  LoopBelow below;
  below.window.length_bytes = number_in(device / "size") * kSysfsSectorBytes;
  if (fs::exists(device / "partition", none)) {
    below.window.offset_bytes = number_in(device / "start") * kSysfsSectorBytes;
    device = device.parent_path();
  }
  below.file = backing_file(device);
  loop_info64 info{};
  if (below.file.empty() || ioctl(fd, LOOP_GET_STATUS64, &info) != 0) return std::nullopt;
  below.loop = device.filename();
  below.window.offset_bytes += info.lo_offset;
  below.device = info.lo_device;
  below.inode = info.lo_inode;
  return below;
}

std::vector<LoopAbove> loops_over(const struct stat& what) {
  std::vector<LoopAbove> found;
  std::error_code none;
  for (fs::directory_iterator entry("/sys/block", none); !none && entry != fs::directory_iterator(); entry.increment(none)) {
    const fs::path& device = entry->path();
    if (!device.filename().string().starts_with("loop")) continue;
    const std::string file = backing_file(device);
    if (!file.empty() && shows(device, file, what)) found.push_back({device.filename(), window_of(device)});
  }
  return found;
}

}  // namespace kelda::blockdev
