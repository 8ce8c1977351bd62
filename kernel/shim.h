// The libc shim: the system calls that the C library makes, served in ring 0. The list, with what each does and does
// not, is docs/libc-shim.md. Private to kernel/.
//
// Contract. A call runs on its caller's stack and CPU, with interrupts as the caller had them. Pointers are the
// program's own: a bad one panics like any wild access. Results are Linux's: >= 0, or a negative errno. A call that is
// not in the table panics with its name: nothing is silently ignored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>

namespace kelda::kernel {

// As entry.S pushes it, low addresses first.
struct SyscallFrame {
  std::uint64_t r15, r14, r13, r12, r10, r9, r8, rdi, rsi, rdx, rbx, rax, rbp, rip, rflags;

  std::uint64_t argument(int i) const {
    const std::uint64_t arguments[6] = {rdi, rsi, rdx, r10, r8, r9};
    return arguments[i];
  }
  template <class T>
  T* pointer(int i) const {
    return reinterpret_cast<T*>(argument(i));
  }
};
static_assert(sizeof(SyscallFrame) == 15 * 8);

using Syscall = std::int64_t (*)(const SyscallFrame&);

struct SyscallEntry {
  int number;
  Syscall call;
};

// The groups; shim_table.cc joins them.
struct SyscallGroup {
  const SyscallEntry* entries;
  std::size_t count;
};
SyscallGroup memory_syscalls();
SyscallGroup thread_syscalls();
SyscallGroup futex_syscalls();
SyscallGroup file_syscalls();
SyscallGroup time_syscalls();
SyscallGroup process_syscalls();

// Wakes up to `count` futex waiters of an address; returns how many.
int futex_wake(const std::uint32_t* address, int count, std::uint32_t bits);
inline constexpr std::uint32_t kAllFutexBits = ~0u;

}  // namespace kelda::kernel
