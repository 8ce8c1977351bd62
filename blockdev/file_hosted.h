// A file or block device of Linux as the place where blocks are: opening, locking, and what it can do.
#pragma once

#include <memory>
#include <string>

#include "blockdev/blockdev.h"
#include "common/result.h"

namespace kelda::blockdev {

// An open and locked file; unlocked and closed with the object.
class DiskFile {
 public:
  // As blockdev::open().
  static Result<std::unique_ptr<DiskFile>> open(const std::string& path, const OpenOptions& options);
  ~DiskFile();
  DiskFile(const DiskFile&) = delete;
  DiskFile& operator=(const DiskFile&) = delete;

  int fd() const { return fd_; }
  bool is_block_device() const { return block_device_; }
  bool is_direct() const { return direct_; }  // O_DIRECT
  // The disk below makes single writes durable by itself, and the filesystem asks it to, for RWF_DSYNC. Otherwise a durable
  // write is a write and an fdatasync.
  bool disk_has_fua() const { return disk_has_fua_; }
  const DeviceInfo& info() const { return info_; }

 private:
  DiskFile(const std::string& path, const OpenOptions& options);
  Result<> open_fd();
  Result<> create_fd(int flags);
  Result<> take_lock();
  Result<> try_lock();
  Result<> probe();
  Result<> probe_block_device();
  Result<> probe_file(std::uint64_t size_bytes);
  std::string no_access(int error) const;

  std::string path_;
  OpenOptions options_;
  DeviceInfo info_;
  int fd_ = -1;
  bool block_device_ = false;
  bool direct_ = true;
  bool disk_has_fua_ = false;
};

// A device over a DiskFile: io_uring on cores that have a ring, worker threads on others.
Result<std::unique_ptr<BlockDevice>> open_file(const std::string& path, const OpenOptions& options);

}  // namespace kelda::blockdev
