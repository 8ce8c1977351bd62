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
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>
#include <fstream>
#include <memory>

namespace kelda::blockdev {

namespace {

// Locks. A writer holds an exclusive lock on all bytes, a reader a shared one on the first hundred. QEMU marks the
// image of a running machine by locks on single bytes from 100 on (its block/file-posix.c: 100 + permission, where
// permission 1 is "writes"), so that a writer excludes QEMU, QEMU excludes a writer, and a reader can ask for byte 101.
constexpr off_t kReaderLockBytes = 100;
constexpr off_t kQemuWritesByte = 101;

struct flock lock_of(short type, off_t start, off_t length) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  return lock;
}

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

DiskFile::DiskFile(const std::string& path, const OpenOptions& options) : path_(path), options_(options) {
  info_.name = path;
  info_.read_only = options.read_only;
}

DiskFile::~DiskFile() {
  if (fd_ >= 0) close(fd_);
}

Result<std::unique_ptr<DiskFile>> DiskFile::open(const std::string& path, const OpenOptions& options) {
  std::unique_ptr<DiskFile> file(new DiskFile(path, options));
  TRY(file->open_fd());
  TRY(file->take_lock());
  TRY(file->probe());
  if (!file->direct_) std::fprintf(stderr, "kelda: %s: no direct I/O here, using the page cache\n", path.c_str());
  return file;
}

std::string DiskFile::no_access(int error) const { return path_ + ": " + std::strerror(error); }

Result<> DiskFile::open_fd() {
  int flags = (options_.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
  struct stat what;
  const bool is_disk = stat(path_.c_str(), &what) == 0 && S_ISBLK(what.st_mode);
  if (is_disk && !options_.read_only) flags |= O_EXCL;  // Linux then refuses a disk that is mounted
  fd_ = ::open(path_.c_str(), flags | O_DIRECT);
  if (fd_ < 0 && errno == EINVAL) {
    // The filesystem does not do direct I/O: the page cache then stands between, and flush still means fdatasync.
    direct_ = false;
    fd_ = ::open(path_.c_str(), flags);
  }
  if (fd_ >= 0) return {};
  if (errno == ENOENT && options_.create_bytes > 0 && !options_.read_only) return create_fd(flags);
  if (errno == ENOENT && options_.read_only) return Error(Code::kNotFound, no_access(errno) + ": name another disk");
  if (errno == ENOENT) return Error(Code::kNotFound, no_access(errno) + "; create it by giving its size (--create SIZE)");
  if (errno == EISDIR) return Error(Code::kInvalidArgument, path_ + " is a folder: name a file or a block device");
  if (errno == EBUSY) return Error(Code::kBusy, path_ + " is mounted or in use by another process: stop that first, or choose another disk");
  return Error(Code::kInvalidArgument, no_access(errno));
}

// Sparse. The name is made durable as well: a disk that held acknowledged data must not vanish with a power cut.
Result<> DiskFile::create_fd(int flags) {
  const int plain = ::open(path_.c_str(), flags | O_CREAT | O_EXCL, 0644);  // never takes over a file that is there
  if (plain < 0) return Error(Code::kInvalidArgument, no_access(errno));
  bool made = ftruncate(plain, static_cast<off_t>(options_.create_bytes)) == 0 && fsync(plain) == 0;
  const std::filesystem::path parent = std::filesystem::path(path_).parent_path();
  const int folder = ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  made = made && folder >= 0 && fsync(folder) == 0;
  const int error = errno;
  if (folder >= 0) close(folder);
  close(plain);
  if (!made) {
    unlink(path_.c_str());
    return Error(error == ENOSPC || error == EFBIG ? Code::kNoSpace : Code::kIo, no_access(error));
  }
  options_.create_bytes = 0;
  return open_fd();
}

// After a kill -9 Linux lets go of the process's lock only when its rings are torn down, some time after its end: a
// server that is started again at once would find the disk in use by nobody.
Result<> DiskFile::take_lock() {
  constexpr auto kPatience = std::chrono::seconds(2);
  constexpr auto kPause = std::chrono::milliseconds(5);
  const auto give_up = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    Result<> taken = try_lock();
    if (!taken.failed_with(Code::kBusy) || std::chrono::steady_clock::now() > give_up) return taken;
    std::this_thread::sleep_for(kPause);
  }
}

Result<> DiskFile::try_lock() {
  const Error busy(Code::kBusy, path_ + " is in use by another process (a running kelda or virtual machine): stop it first");
  struct flock lock = options_.read_only ? lock_of(F_RDLCK, 0, kReaderLockBytes) : lock_of(F_WRLCK, 0, 0);
  if (fcntl(fd_, F_OFD_SETLK, &lock) != 0) {
    if (errno == EAGAIN || errno == EACCES) return busy;
    return Error(Code::kIo, no_access(errno) + " (locking it against a second process)");
  }
  if (!options_.read_only) return {};
  struct flock qemu = lock_of(F_WRLCK, kQemuWritesByte, 1);
  if (fcntl(fd_, F_OFD_GETLK, &qemu) == 0 && qemu.l_type != F_UNLCK) return busy;
  return {};
}

Result<> DiskFile::probe() {
  struct stat what;
  if (fstat(fd_, &what) != 0) return Error(Code::kIo, no_access(errno));
  if (S_ISBLK(what.st_mode)) {
    TRY(probe_block_device());
  } else if (S_ISREG(what.st_mode)) {
    TRY(probe_file(static_cast<std::uint64_t>(what.st_size)));
  } else {
    return Error(Code::kInvalidArgument, path_ + " is neither a file nor a block device: name one that is");
  }
  const std::uint64_t given_bytes = info_.size_bytes;
  info_.size_bytes = round_down(info_.size_bytes, info_.block_bytes);
  if (info_.size_bytes == 0) {
    return Error(Code::kTooSmall, path_ + " has " + std::to_string(given_bytes) + " bytes, which is no disk: name another, or a "
                                          "path that is not there yet with --create SIZE");
  }
  info_.atomic_bytes = info_.block_bytes;
  // fdatasync reaches the medium, with the disk's own cache; where the disk has FUA, so does RWF_DSYNC.
  info_.has_flush = true;
  info_.has_fua = !info_.read_only;
  disk_has_fua_ = (block_device_ || honours_dsync(fd_)) &&
                  queue_attribute_is_positive(block_device_ ? what.st_rdev : what.st_dev, "fua");
  return {};
}

Result<> DiskFile::probe_block_device() {
  block_device_ = true;
  int logical = 0;
  unsigned long long size = 0;
  if (ioctl(fd_, BLKGETSIZE64, &size) != 0 || ioctl(fd_, BLKSSZGET, &logical) != 0) {
    return Error(Code::kIo, no_access(errno));
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
  if (direct_ && !reads_directly(fd_, 512)) info_.block_bytes = kPageBytes;
  if (direct_ && info_.block_bytes == kPageBytes && !reads_directly(fd_, kPageBytes)) {
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
