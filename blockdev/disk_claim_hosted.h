// Taking a disk of Linux: opening or creating a file or block device, and keeping everybody else off it.
//
// Every command takes its disk this way, the host's side of `kelda vm` included. What is seen and what is not:
// docs/operations.md. Two claims of one disk exclude each other unless both are for reading:
// - A block device is opened O_EXCL, which excludes mounts and other such users, but not a plain open, as QEMU's is.
// - Locks of the open file exclude others that lock: byte kDataLocks + n stands for byte n of the disk, and QEMU marks the
//   image of a running machine from byte 100 on.
// - The file below a loop device is locked as well, and the loop devices that show a file are held.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "blockdev/loop_hosted.h"
#include "common/result.h"

namespace kelda::blockdev {

enum class DiskUse {
  kRead,     // others may read as well
  kWrite,    // nobody else
  kMachine,  // nobody else but a QEMU that this process starts
  kLook,     // as kMachine without locks: refuses a mounted disk, and one in use need not be refused
};

// Held until the object's end. Any thread; may sleep for two seconds.
class DiskClaim {
 public:
  // create_bytes: size of the file if it is not there, or is empty; 0: it must be there. A file that was created here, and to
  // which nothing was written, is removed at the end.
  // Errors: kNotFound, kInvalidArgument (a folder, no permission, creating in /dev), kTooSmall (empty), kBusy, kNoSpace, kIo;
  // each says what to do.
  static Result<std::unique_ptr<DiskClaim>> take(const std::string& path, DiskUse use, std::uint64_t create_bytes);
  ~DiskClaim();
  DiskClaim(const DiskClaim&) = delete;
  DiskClaim& operator=(const DiskClaim&) = delete;

  int fd() const { return fd_; }
  bool is_block_device() const { return block_device_; }
  bool is_direct() const { return direct_; }  // O_DIRECT
  // What was created stays, written or not.
  void keep_created();

 private:
  DiskClaim(const std::string& path, DiskUse use) : path_(path), use_(use) {}
  Result<> attempt(std::uint64_t create_bytes);
  Result<> open_fd();
  Result<> create();
  Result<> give_size(std::uint64_t create_bytes);
  Result<> lock(int fd, const Window& window);
  Result<> lock_against_qemu(int fd, bool read_only);
  Result<> hold_below(int fd, Window window, int depth);
  Result<> hold_loops(const struct stat& what, const Window& window, const std::string& own_loop);
  bool reads() const { return use_ == DiskUse::kRead; }
  Error error(Code code, int error_number) const;
  Error in_use(const std::string& by = "") const;

  std::string path_;
  DiskUse use_;
  int fd_ = -1;
  std::vector<int> held_;     // the loop devices above, the files below
  bool block_device_ = false;
  bool direct_ = true;
  std::string created_;       // the file's own name, without symbolic links
  bool sized_ = false;        // it was there and empty
};

}  // namespace kelda::blockdev
