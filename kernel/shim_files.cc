// Files: the console as 0, 1 and 2, and the one file that the C library reads to count CPUs. There is no file system.
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <termios.h>

#include <atomic>
#include <cstring>

#include "kernel/console.h"
#include "kernel/cpu_state.h"
#include "kernel/shim.h"
#include "kernel/time.h"

namespace kelda::kernel {

namespace {

constexpr std::uint64_t kStandardFiles = 3;
constexpr const char* kOnlinePath = "/sys/devices/system/cpu/online";
// One descriptor is enough: the C library opens, reads and closes it under a lock of its own.
constexpr std::uint64_t kOnlineFile = 3;
constinit std::atomic<std::size_t> g_online_offset{0};

bool is_output(std::uint64_t fd) {
  return fd == 1 || fd == 2;
}

std::int64_t do_write(const SyscallFrame& f) {
  if (!is_output(f.rdi)) return -EBADF;
  console_write({f.pointer<const char>(1), f.rdx});
  return static_cast<std::int64_t>(f.rdx);
}

std::int64_t do_writev(const SyscallFrame& f) {
  if (!is_output(f.rdi)) return -EBADF;
  std::int64_t total = 0;
  const auto* parts = f.pointer<const iovec>(1);
  for (std::uint64_t i = 0; i < f.rdx; ++i) {
    console_write({static_cast<const char*>(parts[i].iov_base), parts[i].iov_len});
    total += static_cast<std::int64_t>(parts[i].iov_len);
  }
  return total;
}

std::int64_t read_console(char* out, std::size_t capacity) {
  constexpr std::uint64_t kPollNs = 10'000'000;
  for (;;) {
    if (std::size_t count = console_read(out, capacity)) return static_cast<std::int64_t>(count);
    halt_until_interrupt_or(monotonic_ns() + kPollNs);
  }
}

// "0-3\n"
std::int64_t read_online(char* out, std::size_t capacity) {
  char text[8] = "0";
  std::size_t length = 1;
  if (std::uint32_t last = g_cpu_count - 1) {
    text[length++] = '-';
    if (last >= 10) text[length++] = static_cast<char>('0' + last / 10);
    text[length++] = static_cast<char>('0' + last % 10);
  }
  text[length++] = '\n';
  std::size_t at = g_online_offset.load(std::memory_order_relaxed);
  std::size_t count = length - at < capacity ? length - at : capacity;
  std::memcpy(out, text + at, count);
  g_online_offset.store(at + count, std::memory_order_relaxed);
  return static_cast<std::int64_t>(count);
}

std::int64_t do_read(const SyscallFrame& f) {
  if (f.rdx == 0) return 0;
  if (f.rdi == 0) return read_console(f.pointer<char>(1), f.rdx);
  if (f.rdi == kOnlineFile) return read_online(f.pointer<char>(1), f.rdx);
  return -EBADF;
}

std::int64_t open_path(const char* path) {
  if (std::string_view(path) != kOnlinePath) return -ENOENT;
  g_online_offset.store(0, std::memory_order_relaxed);
  return kOnlineFile;
}

std::int64_t do_openat(const SyscallFrame& f) {
  if (f.rdx & O_CREAT) return -EROFS;
  return open_path(f.pointer<const char>(1));
}
std::int64_t do_open(const SyscallFrame& f) {
  if (f.rsi & O_CREAT) return -EROFS;
  return open_path(f.pointer<const char>(0));
}

std::int64_t do_close(const SyscallFrame& f) {
  return f.rdi <= kOnlineFile ? 0 : -EBADF;
}

std::int64_t describe(std::uint64_t fd, struct stat* out) {
  if (fd > kOnlineFile) return -EBADF;
  std::memset(out, 0, sizeof *out);
  out->st_mode = fd < kStandardFiles ? S_IFCHR | 0600 : S_IFREG | 0400;
  out->st_nlink = 1;
  out->st_blksize = 4096;
  return 0;
}
std::int64_t do_fstat(const SyscallFrame& f) {
  return describe(f.rdi, f.pointer<struct stat>(1));
}
std::int64_t do_newfstatat(const SyscallFrame& f) {
  bool by_descriptor = *f.pointer<const char>(1) == 0 && (f.argument(3) & AT_EMPTY_PATH);
  return by_descriptor ? describe(f.rdi, f.pointer<struct stat>(2)) : -ENOENT;
}

// The console is a terminal, so that the C library writes line by line and nothing is lost when the program hangs.
std::int64_t do_ioctl(const SyscallFrame& f) {
  if (f.rdi >= kStandardFiles || f.rsi != TCGETS) return -ENOTTY;
  constexpr std::size_t kKernelTermiosBytes = 36;  // struct ktermios, shorter than the C library's
  std::memset(f.pointer<char>(2), 0, kKernelTermiosBytes);
  return 0;
}

std::int64_t do_fcntl(const SyscallFrame& f) {
  if (f.rdi > kOnlineFile) return -EBADF;
  switch (f.rsi) {
    case F_GETFL:
      return f.rdi < kStandardFiles ? O_RDWR : O_RDONLY;
    case F_GETFD:
    case F_SETFD:
    case F_SETFL:
      return 0;
    default:
      return -EINVAL;
  }
}

std::int64_t do_lseek(const SyscallFrame& f) {
  return f.rdi <= kOnlineFile ? -ESPIPE : -EBADF;
}
std::int64_t do_no_entry(const SyscallFrame&) {
  return -ENOENT;
}
std::int64_t do_read_only(const SyscallFrame&) {
  return -EROFS;
}

std::int64_t do_getcwd(const SyscallFrame& f) {
  if (f.rsi < 2) return -ERANGE;
  std::memcpy(f.pointer<char>(0), "/", 2);
  return 2;
}

constexpr SyscallEntry kEntries[] = {
    {SYS_write, do_write},         {SYS_writev, do_writev},
    {SYS_read, do_read},           {SYS_openat, do_openat},
    {SYS_open, do_open},           {SYS_close, do_close},
    {SYS_fstat, do_fstat},         {SYS_newfstatat, do_newfstatat},
    {SYS_stat, do_no_entry},       {SYS_lstat, do_no_entry},
    {SYS_statx, do_no_entry},      {SYS_ioctl, do_ioctl},
    {SYS_fcntl, do_fcntl},         {SYS_lseek, do_lseek},
    {SYS_access, do_no_entry},     {SYS_faccessat, do_no_entry},
    {SYS_faccessat2, do_no_entry}, {SYS_readlink, do_no_entry},
    {SYS_readlinkat, do_no_entry}, {SYS_getcwd, do_getcwd},
    {SYS_mkdir, do_read_only},     {SYS_unlink, do_read_only},
    {SYS_unlinkat, do_read_only},  {SYS_rename, do_read_only},
};

}  // namespace

SyscallGroup file_syscalls() {
  return {kEntries, std::size(kEntries)};
}

}  // namespace kelda::kernel
