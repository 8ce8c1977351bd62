// brk, mmap and their relatives: thin translations to demand.h.
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "kernel/demand.h"
#include "kernel/internal.h"
#include "kernel/shim.h"

namespace kelda::kernel {

namespace {

std::int64_t do_brk(const SyscallFrame& f) {
  return static_cast<std::int64_t>(demand_break(f.rdi));
}

// Write access includes read access, as on every x86.
Protection to_protection(std::uint64_t prot) {
  Protection protection = Protection::kNone;
  if (prot & (PROT_READ | PROT_WRITE | PROT_EXEC)) protection = protection | Protection::kRead;
  if (prot & PROT_WRITE) protection = protection | Protection::kWrite;
  if (prot & PROT_EXEC) protection = protection | Protection::kExecute;
  return protection;
}

bool is_write_and_execute(std::uint64_t prot) {
  return (prot & PROT_WRITE) && (prot & PROT_EXEC);
}

std::int64_t do_mmap(const SyscallFrame& f) {
  std::uint64_t prot = f.argument(2), flags = f.argument(3);
  if (!(flags & MAP_ANONYMOUS)) return -ENODEV;  // there are no files
  if (is_write_and_execute(prot)) return -EACCES;
  bool fixed = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE);
  if ((flags & MAP_FIXED_NOREPLACE) && demand_is_used(f.rdi, f.rsi)) return -EEXIST;
  return demand_map({f.rdi, f.rsi, to_protection(prot), fixed, (flags & MAP_NORESERVE) != 0});
}

std::int64_t do_munmap(const SyscallFrame& f) {
  return demand_unmap(f.rdi, f.rsi);
}

std::int64_t do_mprotect(const SyscallFrame& f) {
  std::uint64_t begin = f.rdi, size_bytes = round_up(f.rsi, kPageBytes), prot = f.rdx;
  if (is_write_and_execute(prot)) return -EACCES;
  if (is_image(begin, begin + size_bytes)) {
    return protect_image(begin, begin + size_bytes, prot & PROT_WRITE, prot & PROT_EXEC) ? 0 : -EINVAL;
  }
  return demand_protect(begin, size_bytes, to_protection(prot));
}

// Advice that is not followed changes nothing that a program can see.
std::int64_t do_madvise(const SyscallFrame& f) {
  bool discard = f.rdx == MADV_DONTNEED || f.rdx == MADV_FREE;
  return discard ? demand_discard(f.rdi, f.rsi) : 0;
}

std::int64_t do_mremap(const SyscallFrame& f) {
  std::uint64_t flags = f.argument(3);
  if (flags & ~std::uint64_t{MREMAP_MAYMOVE}) return -EINVAL;
  return demand_resize(f.rdi, f.rsi, f.rdx, flags & MREMAP_MAYMOVE);
}

// Memory is never paged out.
std::int64_t do_nothing(const SyscallFrame&) {
  return 0;
}

constexpr SyscallEntry kEntries[] = {
    {SYS_brk, do_brk},           {SYS_mmap, do_mmap},       {SYS_munmap, do_munmap},
    {SYS_mprotect, do_mprotect}, {SYS_madvise, do_madvise}, {SYS_mremap, do_mremap},
    {SYS_mlock, do_nothing},     {SYS_munlock, do_nothing}, {SYS_mlockall, do_nothing},
};

}  // namespace

SyscallGroup memory_syscalls() {
  return {kEntries, std::size(kEntries)};
}

}  // namespace kelda::kernel
