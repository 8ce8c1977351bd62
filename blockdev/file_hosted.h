// A file or block device of Linux as the place where blocks are: what was taken (DiskClaim), and what it can do.
#pragma once

#include <memory>
#include <string>

#include "blockdev/blockdev.h"
#include "blockdev/disk_claim_hosted.h"
#include "common/result.h"

namespace kelda::blockdev {

// An open and locked file; unlocked and closed with the object.
class DiskFile {
 public:
  // As blockdev::open().
  static Result<std::unique_ptr<DiskFile>> open(const std::string& path, const OpenOptions& options);

  int fd() const { return fd_; }
  bool is_block_device() const { return claim_->is_block_device(); }
  bool is_direct() const { return claim_->is_direct(); }  // O_DIRECT
  // The disk below makes single writes durable by itself, and the filesystem asks it to, for RWF_DSYNC. Otherwise a durable
  // write is a write and an fdatasync.
  bool disk_has_fua() const { return disk_has_fua_; }
  const DeviceInfo& info() const { return info_; }

 private:
  explicit DiskFile(const std::string& path) : path_(path) {}
  Result<> probe();
  Result<> probe_block_device();
  Result<> probe_file(std::uint64_t size_bytes);
  std::string no_access(int error) const;

  std::string path_;
  std::unique_ptr<DiskClaim> claim_;
  DeviceInfo info_;
  int fd_ = -1;  // the claim's
  bool disk_has_fua_ = false;
};

// A device over a DiskFile: io_uring on cores that have a ring, worker threads on others.
Result<std::unique_ptr<BlockDevice>> open_file(const std::string& path, const OpenOptions& options);

}  // namespace kelda::blockdev
