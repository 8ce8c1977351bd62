#include "blockdev/disk_claim_hosted.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <thread>
#include <utility>

namespace kelda::blockdev {

namespace {

namespace fs = std::filesystem;

// QEMU locks single bytes (its block/file-posix.c): 100 + permission for what it does, where permission 1 is "writes", and
// 200 + permission for what it does not allow others; it looks at others' locks on both.
constexpr off_t kQemuDoes = 100, kQemuWrites = 101, kQemuForbids = 200;
constexpr off_t kDataLocks = off_t{1} << 62;

struct flock lock_of(short type, off_t start, off_t length) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  return lock;
}

// The name that is not there, at the end of symbolic links that are.
fs::path end_of_links(fs::path path) {
  constexpr int kMostLinks = 40;  // as Linux
  std::error_code none;
  for (int links = 0; links < kMostLinks && fs::is_symlink(path, none); ++links) {
    const fs::path target = fs::read_symlink(path, none);
    path = target.is_absolute() ? target : path.parent_path() / target;
  }
  return path;
}

// What Linux makes of a mistyped device's name is a file in memory. /dev/shm is there for files in memory.
bool is_among_devices(const fs::path& folder) {
  std::error_code none;
  const std::string where = fs::weakly_canonical(fs::absolute(folder, none), none).string() + "/";
  if (where.starts_with("/dev/") && !where.starts_with("/dev/shm/")) return true;
  struct stat here, devices, root;
  return stat(folder.c_str(), &here) == 0 && stat("/dev", &devices) == 0 && stat("/", &root) == 0 &&
         devices.st_dev != root.st_dev && here.st_dev == devices.st_dev;
}

bool holds_nothing(int fd) { return lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO; }

}  // namespace

// After a kill -9 Linux lets go of the process's locks only when its rings are torn down, some time after its end: a server
// that is started again at once would find the disk in use by nobody.
Result<std::unique_ptr<DiskClaim>> DiskClaim::take(const std::string& path, DiskUse use, std::uint64_t create_bytes) {
  constexpr auto kPatience = std::chrono::seconds(2);
  constexpr auto kPause = std::chrono::milliseconds(5);
  const auto give_up = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    std::unique_ptr<DiskClaim> claim(new DiskClaim(path, use));
    Result<> done = claim->attempt(create_bytes);
    if (done) return claim;
    if (!done.failed_with(Code::kBusy) || std::chrono::steady_clock::now() > give_up) return std::move(done).error();
    claim.reset();
    std::this_thread::sleep_for(kPause);
  }
}

// What was created and not used goes while the lock is still held.
DiskClaim::~DiskClaim() {
  if (fd_ >= 0 && (sized_ || !created_.empty()) && holds_nothing(fd_)) {
    struct stat mine, named;
    const bool same = fstat(fd_, &mine) == 0 && lstat(created_.c_str(), &named) == 0 && mine.st_dev == named.st_dev &&
                      mine.st_ino == named.st_ino;
    if (same) unlink(created_.c_str());
    if (sized_ && created_.empty() && ftruncate(fd_, 0) != 0) std::perror(path_.c_str());
  }
  for (const int fd : held_) close(fd);
  if (fd_ >= 0) close(fd_);
}

void DiskClaim::keep_created() {
  created_.clear();
  sized_ = false;
}

Error DiskClaim::error(Code code, int error_number) const { return Error(code, path_ + ": " + std::strerror(error_number)); }

Error DiskClaim::in_use(const std::string& by) const {
  return Error(Code::kBusy, path_ + by + " is in use by another process (a running kelda or virtual machine): stop it first");
}

Result<> DiskClaim::attempt(std::uint64_t create_bytes) {
  Result<> opened = open_fd();
  if (opened.failed_with(Code::kNotFound) && create_bytes > 0 && !reads()) {
    TRY(create());
    opened = open_fd();
  }
  TRY(std::move(opened));
  struct stat what;
  if (fstat(fd_, &what) != 0) return error(Code::kIo, errno);
  TRY(lock(fd_, {}));
  if (block_device_) TRY(hold_below(fd_, {}, 0));
  if (!reads()) {
    TRY(hold_loops(what, {}, ""));
    TRY(give_size(create_bytes));
  }
  return {};
}

Result<> DiskClaim::open_fd() {
  struct stat what;
  if (stat(path_.c_str(), &what) == 0) {  // looked at before it is opened: opening can have effects, or wait
    if (S_ISDIR(what.st_mode)) {
      return Error(Code::kInvalidArgument, path_ + " is a folder, neither a file nor a block device: name a file or a block device");
    }
    block_device_ = S_ISBLK(what.st_mode);
    if (!block_device_ && !S_ISREG(what.st_mode)) {
      return Error(Code::kInvalidArgument, path_ + " is neither a file nor a block device: name one that is");
    }
  }
  int flags = (reads() ? O_RDONLY : O_RDWR) | O_CLOEXEC;
  if (block_device_ && !reads()) flags |= O_EXCL;  // Linux then refuses a disk that is mounted
  fd_ = ::open(path_.c_str(), flags | O_DIRECT);
  if (fd_ < 0 && errno == EINVAL) {
    // The filesystem does not do direct I/O: the page cache then stands between, and flush still means fdatasync.
    direct_ = false;
    fd_ = ::open(path_.c_str(), flags);
  }
  if (fd_ >= 0) return {};
  const int error_number = errno;
  const std::string reason = path_ + ": " + std::strerror(error_number);
  if (error_number == ENOENT && reads()) return Error(Code::kNotFound, reason + ": name another disk");
  if (error_number == ENOENT) return Error(Code::kNotFound, reason + "; create it by giving its size (--create SIZE)");
  if (error_number == EBUSY) {
    return Error(Code::kBusy, path_ + " is mounted or in use by another process: stop that first, or choose another disk");
  }
  return Error(Code::kInvalidArgument, reason);
}

// Empty: its size comes when it is locked, as that of an empty file which was there. The name is made durable at once: a disk
// that held acknowledged data must not vanish with a power cut.
Result<> DiskClaim::create() {
  const fs::path file = end_of_links(path_);
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  if (is_among_devices(folder)) {
    return Error(Code::kInvalidArgument, path_ + " is not there, and --create makes files, which in /dev lie in memory: name a device "
                                                 "that is there, or a file in another folder");
  }
  const int made = ::open(file.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (made < 0 && errno == EEXIST) return {};  // by somebody else, just now
  if (made < 0) return error(Code::kInvalidArgument, errno);
  close(made);
  created_ = file;
  const int folder_fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool durable = folder_fd >= 0 && fsync(folder_fd) == 0;
  const int error_number = errno;
  if (folder_fd >= 0) close(folder_fd);
  if (durable) return {};
  unlink(created_.c_str());
  return error(error_number == ENOSPC ? Code::kNoSpace : Code::kIo, error_number);
}

// Sparse.
Result<> DiskClaim::give_size(std::uint64_t create_bytes) {
  struct stat what;
  if (fstat(fd_, &what) != 0) return error(Code::kIo, errno);
  if (block_device_) {
    unsigned long long size_bytes = 0;
    if (ioctl(fd_, BLKGETSIZE64, &size_bytes) != 0) return error(Code::kIo, errno);
    if (size_bytes == 0) return Error(Code::kTooSmall, path_ + " has 0 bytes, which is no disk: name another");
    return {};
  }
  if (what.st_size > 0) return {};
  if (create_bytes == 0) return Error(Code::kTooSmall, path_ + " is empty: give it its size with --create SIZE, or name another disk");
  sized_ = true;
  if (ftruncate(fd_, static_cast<off_t>(create_bytes)) == 0 && fsync(fd_) == 0) return {};
  return error(errno == ENOSPC || errno == EFBIG || errno == EDQUOT ? Code::kNoSpace : Code::kIo, errno);
}

// Locks first and looks then, as QEMU does, so that of two that start together at least one sees the other.
Result<> DiskClaim::lock(int fd, const Window& window) {
  if (use_ == DiskUse::kLook) return {};
  const auto start = kDataLocks + static_cast<off_t>(window.offset_bytes);
  const bool to_the_end = window.length_bytes >= static_cast<std::uint64_t>(kDataLocks) - window.offset_bytes;
  struct flock data = lock_of(reads() ? F_RDLCK : F_WRLCK, start, to_the_end ? 0 : static_cast<off_t>(window.length_bytes));
  if (fcntl(fd, F_OFD_SETLK, &data) != 0) {
    if (errno == EAGAIN || errno == EACCES) return in_use();
    return Error(Code::kIo, path_ + ": " + std::strerror(errno) + " (locking it against a second process)");
  }
  return lock_against_qemu(fd, fd == fd_ && use_ == DiskUse::kMachine);
}

// A QEMU that only reads disturbs no reader. let_in: the QEMU to come.
Result<> DiskClaim::lock_against_qemu(int fd, bool let_in) {
  if (use_ == DiskUse::kLook) return {};
  struct flock against = lock_of(F_RDLCK, kQemuForbids, kDataLocks - kQemuForbids);
  if (!reads() && !let_in && fcntl(fd, F_OFD_SETLK, &against) != 0) {
    if (errno == EAGAIN || errno == EACCES) return in_use();
    return Error(Code::kIo, path_ + ": " + std::strerror(errno) + " (locking it against virtual machines)");
  }
  struct flock qemu = reads() ? lock_of(F_WRLCK, kQemuWrites, 1) : lock_of(F_WRLCK, kQemuDoes, kQemuForbids - kQemuDoes);
  if (fcntl(fd, F_OFD_GETLK, &qemu) == 0 && qemu.l_type != F_UNLCK) return in_use();
  return {};
}

// The file that a loop device shows, and what is below that.
Result<> DiskClaim::hold_below(int fd, Window window, int depth) {
  constexpr int kDeepest = 8;
  struct stat what;
  if (depth == kDeepest || fstat(fd, &what) != 0 || !S_ISBLK(what.st_mode)) return {};
  const auto below = below_loop(fd, what.st_rdev);
  if (!below) return {};
  const int file = ::open(below->file.c_str(), (reads() ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_CLOEXEC);
  if (file >= 0) held_.push_back(file);
  if (file < 0 || fstat(file, &what) != 0 || what.st_dev != below->device || what.st_ino != below->inode) {
    std::fprintf(stderr, "kelda: %s: the file below it, %s, cannot be opened from here: another user of that file would not be noticed\n",
                 path_.c_str(), below->file.c_str());
    return {};
  }
  window = {below->window.offset_bytes + window.offset_bytes, std::min(window.length_bytes, below->window.length_bytes)};
  TRY(lock(file, window));
  if (!reads()) TRY(hold_loops(what, window, below->loop));
  return hold_below(file, window, depth + 1);
}

// One that cannot be asked is taken for one in use: it shows this very disk.
Result<> DiskClaim::hold_loops(const struct stat& what, const Window& window, const std::string& own_loop) {
  for (const LoopAbove& above : loops_over(what)) {
    if (above.loop == own_loop || !above.window.overlaps(window)) continue;
    const std::string device = "/dev/" + above.loop;
    const int fd = ::open(device.c_str(), O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENXIO)) continue;  // not to be had from here, or detached since
    if (fd < 0 && errno == EBUSY) {
      return Error(Code::kBusy, path_ + " is also " + device + ", which is mounted or in use by another process: stop that first, "
                                        "or choose another disk");
    }
    if (fd < 0) {
      return Error(Code::kInvalidArgument, path_ + " is also " + device + ", which cannot be asked whether it is in use (" +
                                               std::strerror(errno) + "): detach it (losetup -d " + device + "), or choose another disk");
    }
    held_.push_back(fd);
    TRY(lock_against_qemu(fd, false));
  }
  return {};
}

}  // namespace kelda::blockdev
