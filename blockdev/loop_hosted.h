// Loop devices of Linux: a disk that is a file, and that file, are two names for the same bytes.
//
// Read from /sys and from the devices themselves; nothing is kept. Any thread.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kelda::blockdev {

// Bytes of a file or block device.
struct Window {
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = UINT64_MAX / 2;  // without a word on it: all there is
  bool overlaps(const Window& other) const {
    return offset_bytes < other.offset_bytes + other.length_bytes && other.offset_bytes < offset_bytes + length_bytes;
  }
};

// What a loop device, or a partition of one, shows: a window of a file.
struct LoopBelow {
  std::string file;           // as the kernel names it: in another mount namespace it may be elsewhere
  Window window;
  std::string loop;           // the loop device's name in /sys
  std::uint64_t device = 0, inode = 0;  // of the file
};
// `fd`: an open block device whose number is `number`. Nothing when it is no loop device.
std::optional<LoopBelow> below_loop(int fd, dev_t number);

// A loop device that shows a given file or block device.
struct LoopAbove {
  std::string loop;  // its name in /sys; in /dev the same
  Window window;
};
std::vector<LoopAbove> loops_over(const struct stat& what);

}  // namespace kelda::blockdev
