#include "blockdev/file_hosted.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>

namespace kelda::blockdev {

namespace {

// Can a block of this size be read with O_DIRECT? The answer depends on the filesystem and the disk below it.
bool reads_directly(int fd, std::size_t bytes) {
  std::unique_ptr<void, decltype(&std::free)> block(std::aligned_alloc(kPageBytes, kPageBytes), std::free);
  return block != nullptr && pread(fd, block.get(), bytes, 0) >= 0;
}

bool queue_attribute_is_positive(dev_t device, const char* attribute) {
  const std::string base = "/sys/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
  for (const char* queue : {"/queue/", "/../queue/"}) {  // a partition's queue is its disk's
    std::ifstream in(base + queue + attribute);
    unsigned long long value = 0;
    if (in >> value) return value > 0;
  }
  return false;
}

// Does the filesystem see to RWF_DSYNC itself? FUSE only passes it on, to servers of which most do not look at it, also where
// they lie on a disk (ntfs-3g). Linux's own disk filesystems do.
bool honours_dsync(int fd) {
  constexpr decltype(statfs::f_type) kHonour[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, F2FS_SUPER_MAGIC};
  struct statfs filesystem;
  return fstatfs(fd, &filesystem) == 0 && std::ranges::find(kHonour, filesystem.f_type) != std::end(kHonour);
}

}  // namespace

Result<std::unique_ptr<DiskFile>> DiskFile::open(const std::string& path, const OpenOptions& options) {
  std::unique_ptr<DiskFile> file(new DiskFile(path));
  file->info_.name = path;
  file->info_.read_only = options.read_only;
  file->claim_ = TRY(DiskClaim::take(path, options.read_only ? DiskUse::kRead : DiskUse::kWrite, options.create_bytes));
  file->fd_ = file->claim_->fd();
  TRY(file->probe());
  if (!file->is_direct()) std::fprintf(stderr, "kelda: %s: no direct I/O here, using the page cache\n", path.c_str());
  return file;
}

std::string DiskFile::no_access(int error) const { return path_ + ": " + std::strerror(error); }

Result<> DiskFile::probe() {
  struct stat what;
  if (fstat(fd_, &what) != 0) return Error(Code::kIo, no_access(errno));
  if (is_block_device()) {
    TRY(probe_block_device());
  } else {
    TRY(probe_file(static_cast<std::uint64_t>(what.st_size)));
  }
  const std::uint64_t given_bytes = info_.size_bytes;
  info_.size_bytes = round_down(info_.size_bytes, info_.block_bytes);
  if (info_.size_bytes == 0) {
    return Error(Code::kTooSmall, path_ + " has " + std::to_string(given_bytes) + " bytes, which is no disk: name another");
  }
  info_.atomic_bytes = info_.block_bytes;
  // fdatasync reaches the medium, with the disk's own cache; where the disk has FUA, so does RWF_DSYNC.
  info_.has_flush = true;
  info_.has_fua = !info_.read_only;
  disk_has_fua_ = (is_block_device() || honours_dsync(fd_)) &&
                  queue_attribute_is_positive(is_block_device() ? what.st_rdev : what.st_dev, "fua");
  return {};
}

Result<> DiskFile::probe_block_device() {
  int logical = 0;
  unsigned long long size = 0;
  if (ioctl(fd_, BLKGETSIZE64, &size) != 0 || ioctl(fd_, BLKSSZGET, &logical) != 0) {
    return Error(Code::kIo, no_access(errno));
  }
  // Linux opens a read-only disk for writing, and then refuses the first write.
  int disk_is_read_only = 0;
  if (!info_.read_only && ioctl(fd_, BLKROGET, &disk_is_read_only) == 0 && disk_is_read_only != 0) {
    return Error(Code::kInvalidArgument, path_ + " is read-only: make it writable (blockdev --setrw), or choose another disk");
  }
  struct stat what;
  if (fstat(fd_, &what) != 0) return Error(Code::kIo, no_access(errno));
  info_.size_bytes = size;
  info_.block_bytes = static_cast<std::uint32_t>(logical);
  info_.has_discard = !info_.read_only && queue_attribute_is_positive(what.st_rdev, "discard_max_bytes");
  info_.has_write_zeroes = !info_.read_only;  // BLKZEROOUT: Linux writes them where the disk cannot
  return {};
}

Result<> DiskFile::probe_file(std::uint64_t size_bytes) {
  info_.size_bytes = size_bytes;
  info_.block_bytes = 512;
  if (is_direct() && !reads_directly(fd_, 512)) info_.block_bytes = kPageBytes;
  if (is_direct() && info_.block_bytes == kPageBytes && !reads_directly(fd_, kPageBytes)) {
    return Error(Code::kIo, no_access(errno) + " (reading its first block)");
  }
  if (info_.read_only) return {};
  // Beyond the end and without growing the file: tells what the filesystem can do, and leaves nothing behind.
  const auto end = static_cast<off_t>(round_up(size_bytes, kPageBytes));
  info_.has_write_zeroes = fallocate(fd_, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, end, kPageBytes) == 0;
  info_.has_discard = fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, end, kPageBytes) == 0;
  return {};
}

}  // namespace kelda::blockdev
