// What a process is, has and may: identity, limits, signals, its end.
#include <asm/prctl.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include <cstring>

#include "kernel/kernel.h"
#include "kernel/machine.h"
#include "kernel/memory.h"
#include "kernel/panic.h"
#include "kernel/random.h"
#include "kernel/shim.h"
#include "kernel/time.h"

namespace kelda::kernel {

namespace {

std::int64_t do_arch_prctl(const SyscallFrame& f) {
  switch (f.rdi) {
    case ARCH_SET_FS:
      write_msr(kMsrFsBase, f.rsi);
      return 0;
    case ARCH_GET_FS:
      *f.pointer<std::uint64_t>(1) = read_msr(kMsrFsBase);
      return 0;
    default:
      return -EINVAL;  // %gs is the kernel's
  }
}

std::int64_t do_exit_group(const SyscallFrame& f) {
  exit_vm(static_cast<int>(f.rdi));
}

// Nothing but the program itself can signal it, and it does so to die: abort(), raise().
std::int64_t die_by_signal(std::uint64_t signal) {
  if (signal == 0) return 0;
  if (signal == SIGABRT) panic("abort");
  panic_with_number("killed by its own signal", static_cast<std::int64_t>(signal));
}
std::int64_t do_tgkill(const SyscallFrame& f) {
  return die_by_signal(f.rdx);
}
std::int64_t do_tkill(const SyscallFrame& f) {
  return die_by_signal(f.rsi);
}

// Signals are never delivered; handlers and masks may be set and read back as empty.
std::int64_t do_rt_sigaction(const SyscallFrame& f) {
  constexpr std::size_t kKernelSigactionBytes = 32;
  if (f.rdx) std::memset(f.pointer<char>(2), 0, kKernelSigactionBytes);
  return 0;
}
std::int64_t do_rt_sigprocmask(const SyscallFrame& f) {
  if (f.rdx) std::memset(f.pointer<char>(2), 0, f.argument(3));
  return 0;
}
std::int64_t do_sigaltstack(const SyscallFrame& f) {
  if (f.rsi) {
    std::memset(f.pointer<char>(1), 0, sizeof(stack_t));
    f.pointer<stack_t>(1)->ss_flags = SS_DISABLE;
  }
  return 0;
}

std::int64_t do_prlimit64(const SyscallFrame& f) {
  if (f.rdx) return 0;
  auto* limit = f.pointer<rlimit>(3);
  if (!limit) return 0;
  *limit = {RLIM_INFINITY, RLIM_INFINITY};
  if (f.rsi == RLIMIT_STACK) *limit = {8 << 20, RLIM_INFINITY};
  if (f.rsi == RLIMIT_NOFILE) *limit = {1024, 1024};
  if (f.rsi == RLIMIT_CORE) *limit = {0, 0};
  return 0;
}
std::int64_t do_getrlimit(const SyscallFrame& f) {
  SyscallFrame same = f;
  same.rsi = f.rdi;
  same.rdx = 0;
  same.r10 = f.rsi;
  return do_prlimit64(same);
}

std::int64_t do_getrandom(const SyscallFrame& f) {
  random_fill({f.pointer<std::byte>(0), f.rsi});
  return static_cast<std::int64_t>(f.rsi);
}

std::int64_t do_uname(const SyscallFrame& f) {
  auto* name = f.pointer<utsname>(0);
  std::memset(name, 0, sizeof *name);
  std::memcpy(name->sysname, "Kelda", 6);
  std::memcpy(name->nodename, "kelda", 6);
  // The C library refuses versions of Linux that it does not know.
  std::memcpy(name->release, "6.1.0", 6);
  std::memcpy(name->version, KELDA_VERSION, sizeof KELDA_VERSION);
  std::memcpy(name->machine, "x86_64", 7);
  return 0;
}

std::int64_t do_sysinfo(const SyscallFrame& f) {
  auto* info = f.pointer<struct sysinfo>(0);
  std::memset(info, 0, sizeof *info);
  MemoryStats stats = memory_stats();
  info->uptime = static_cast<long>(monotonic_ns() / 1'000'000'000);
  info->totalram = stats.total_page_count;
  info->freeram = stats.free_page_count;
  info->procs = 1;
  info->mem_unit = kPageBytes;
  return 0;
}

std::int64_t do_prctl(const SyscallFrame& f) {
  constexpr std::uint64_t kSetName = 15;
  return f.rdi == kSetName ? 0 : -EINVAL;
}

std::int64_t do_getpid(const SyscallFrame&) {
  return 1;
}
std::int64_t do_zero(const SyscallFrame&) {
  return 0;
}

constexpr SyscallEntry kEntries[] = {
    {SYS_arch_prctl, do_arch_prctl},
    {SYS_exit_group, do_exit_group},
    {SYS_tgkill, do_tgkill},
    {SYS_tkill, do_tkill},
    {SYS_kill, do_tkill},
    {SYS_rt_sigaction, do_rt_sigaction},
    {SYS_rt_sigprocmask, do_rt_sigprocmask},
    {SYS_sigaltstack, do_sigaltstack},
    {SYS_prlimit64, do_prlimit64},
    {SYS_getrlimit, do_getrlimit},
    {SYS_getrandom, do_getrandom},
    {SYS_uname, do_uname},
    {SYS_sysinfo, do_sysinfo},
    {SYS_prctl, do_prctl},
    {SYS_getpid, do_getpid},
    {SYS_getppid, do_zero},
    {SYS_getuid, do_zero},
    {SYS_geteuid, do_zero},
    {SYS_getgid, do_zero},
    {SYS_getegid, do_zero},
};

}  // namespace

SyscallGroup process_syscalls() {
  return {kEntries, std::size(kEntries)};
}

}  // namespace kelda::kernel
