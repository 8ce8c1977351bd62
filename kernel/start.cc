// From the first C++ instruction to the program's _start.
#include <elf.h>

#include "kernel/apic.h"
#include "kernel/command_line.h"
#include "kernel/cpu_state.h"
#include "kernel/demand.h"
#include "kernel/internal.h"
#include "kernel/io_apic.h"
#include "kernel/kernel.h"
#include "kernel/machine.h"
#include "kernel/random.h"
#include "kernel/shim_threads.h"
#include "kernel/tables.h"
#include "kernel/time.h"

extern "C" const Elf64_Ehdr __ehdr_start;
extern "C" [[noreturn]] void kelda_enter_program(void* stack, void (*entry)());

namespace kelda::kernel {

namespace {

constinit bool g_bare = false;

constexpr std::size_t kMainStackBytes = 8_MiB;
constexpr std::size_t kArgumentBytes = 16_KiB;

// Writes the initial stack of a process downwards (System V ABI, 3.4.1): strings on top, then auxv, envp, argv, argc.
class StackWriter {
 public:
  explicit StackWriter(std::uint64_t top) : at_(top) {}

  char* take(std::size_t size_bytes) {
    at_ -= size_bytes;
    return reinterpret_cast<char*>(at_);
  }
  void align() { at_ &= ~std::uint64_t{15}; }
  void push(std::uint64_t word) {
    at_ -= sizeof word;
    *reinterpret_cast<std::uint64_t*>(at_) = word;
  }
  void push_aux(std::uint64_t type, std::uint64_t value) {
    push(value);
    push(type);
  }
  void* top() const { return reinterpret_cast<void*>(at_); }
  std::uint64_t address() const { return at_; }

 private:
  std::uint64_t at_;
};

char* copy_string(StackWriter& stack, std::string_view text) {
  char* at = stack.take(text.size() + 1);
  for (std::size_t i = 0; i < text.size(); ++i) at[i] = text[i];
  at[text.size()] = 0;
  return at;
}

void push_aux_vector(StackWriter& stack, const char* name, const char* random) {
  auto image = reinterpret_cast<std::uint64_t>(&__ehdr_start);
  stack.push_aux(AT_NULL, 0);
  stack.push_aux(AT_PHDR, image + __ehdr_start.e_phoff);
  stack.push_aux(AT_PHENT, __ehdr_start.e_phentsize);
  stack.push_aux(AT_PHNUM, __ehdr_start.e_phnum);
  stack.push_aux(AT_PAGESZ, kPageBytes);
  stack.push_aux(AT_ENTRY, __ehdr_start.e_entry);
  stack.push_aux(AT_CLKTCK, 100);
  stack.push_aux(AT_SECURE, 0);
  stack.push_aux(AT_RANDOM, reinterpret_cast<std::uint64_t>(random));
  stack.push_aux(AT_EXECFN, reinterpret_cast<std::uint64_t>(name));
}

void* build_stack(std::uint64_t top) {
  StackWriter stack(top - 64);
  char* random = stack.take(16);
  random_fill({reinterpret_cast<std::byte*>(random), 16});
  // Emulators run string instructions a byte at a time; the C library would choose them for long copies.
  char* tunables = running_emulated() ? copy_string(stack, "GLIBC_TUNABLES=glibc.cpu.hwcaps=-ERMS,-FSRM") : nullptr;
  char* words = stack.take(kArgumentBytes);
  std::size_t size_bytes = 0;
  std::size_t count = split_command_line(words, kArgumentBytes, size_bytes);
  if (count == 0) {
    words = copy_string(stack, "kelda");
    size_bytes = 6;
    count = 1;
  }
  stack.align();
  // argc must end up 16-byte aligned: auxv is 20 words, then envp (1 or 2), argv and its null, argc.
  std::size_t environment = tunables ? 2 : 1;
  if ((environment + count + 2) % 2) stack.push(0);
  push_aux_vector(stack, words, random);
  stack.push(0);
  if (tunables) stack.push(reinterpret_cast<std::uint64_t>(tunables));
  stack.push(0);
  for (std::size_t end = size_bytes, i = 0; i < count; ++i) {
    // Backwards: each word begins behind the zero before it.
    std::size_t begin = end - 1;
    while (begin > 0 && words[begin - 1] != 0) --begin;
    stack.push(reinterpret_cast<std::uint64_t>(words + begin));
    end = begin;
  }
  stack.push(count);
  return stack.top();
}

std::uint64_t make_main_stack() {
  std::int64_t base = demand_map({.size_bytes = kMainStackBytes + kPageBytes,
                                  .protection = Protection::kRead | Protection::kWrite,
                                  .may_exceed_memory = true});
  if (base < 0 || demand_protect(static_cast<VirtAddr>(base), kPageBytes, Protection::kNone) != 0) {
    die_early("kelda: no memory for the main stack\n");
  }
  return static_cast<std::uint64_t>(base) + kPageBytes + kMainStackBytes;
}

[[noreturn]] void enter_program() {
  std::uint64_t top = make_main_stack();
  begin_main_thread();
  kelda_enter_program(build_stack(top), reinterpret_cast<void (*)()>(__ehdr_start.e_entry));
}

}  // namespace

bool running_bare() {
  return g_bare;
}

void die_early(std::string_view message) {
  console_write_raw(message);
  exit_vm(kPanicExitCode);
}

extern "C" void kelda_kernel_start(const StartInfo* start) {
  g_bare = true;
  init_emulation();
  init_console();
  build_interrupt_table();
  set_up_boot_cpu();
  if (start->magic != kStartInfoMagic) die_early("kelda: not started by a PVH loader\n");
  StartInfo info = *start;
  set_command_line(reinterpret_cast<const char*>(info.command_line));
  init_frames(info);
  init_paging();
  set_up_this_cpu(0);
  g_cpus[0].idle_stack_top = make_kernel_stack(kKernelStackBytes);
  init_demand();
  init_apic();
  enable_apic_this_cpu();
  init_acpi(info);
  init_io_apics();
  init_clock();
  init_timer_this_cpu();
  init_random();
  g_cpus[0].started.store(true, std::memory_order_release);
  start_other_cpus();
  init_power_button();
  enter_program();
}

}  // namespace kelda::kernel
