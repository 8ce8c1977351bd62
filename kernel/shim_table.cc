#include <cstring>

#include "kernel/kernel.h"
#include "kernel/shim.h"
#include "kernel/tlb.h"

namespace kelda::kernel {

namespace {

struct Name {
  std::uint64_t number;
  const char* name;
};
// From Linux's header, by CMake.
constexpr Name kNames[] = {
#include "syscall_names.inc"
};

const char* name_of(std::uint64_t number) {
  for (const Name& entry : kNames) {
    if (entry.number == number) return entry.name;
  }
  return "unknown";
}

constexpr std::size_t kTableSize = 512;
constinit Syscall g_table[kTableSize] = {};
constinit bool g_ready = false;

void add(SyscallGroup group) {
  for (std::size_t i = 0; i < group.count; ++i) g_table[group.entries[i].number] = group.entries[i].call;
}

// The boot CPU makes the first call, long before there is a thread.
void build_table() {
  add(memory_syscalls());
  add(thread_syscalls());
  add(futex_syscalls());
  add(file_syscalls());
  add(time_syscalls());
  add(process_syscalls());
  g_ready = true;
}

[[noreturn]] void refuse(std::uint64_t number) {
  static char message[128];
  std::size_t used = 0;
  auto append = [&](const char* text) {
    while (*text && used + 1 < sizeof message) message[used++] = *text++;
  };
  append("system call that the libc shim does not serve: ");
  append(name_of(number));
  append(", number ");
  char digits[20];
  std::size_t at = sizeof digits - 1;
  digits[at] = 0;
  do digits[--at] = static_cast<char>('0' + number % 10);
  while (number /= 10);
  append(digits + at);
  message[used] = 0;
  panic(message);
}

}  // namespace

extern "C" std::int64_t kelda_shim_dispatch(const SyscallFrame* frame) {
  if (!g_ready) build_table();
  {
    InterruptsOff off;
    tlb_pass();
  }
  Syscall call = frame->rax < kTableSize ? g_table[frame->rax] : nullptr;
  if (!call) refuse(frame->rax);
  return call(*frame);
}

}  // namespace kelda::kernel
