// A program that dies in the way its argument names, so that tests/kernel_faults.py can look at the panic. A second
// thread, where there is a second CPU, is busy meanwhile: its backtrace must be there too.
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <thread>

#include "common/assert.h"
#include "runtime/core.h"
#include "kernel/cpu_state.h"
#include "kernel/kernel.h"
#include "kernel/paging.h"

extern "C" {
extern char kelda_boot_stack[];
[[noreturn]] void kelda_switch_stack(std::uint64_t stack, void (*function)());
}

namespace kelda::kernel_fault {

std::atomic<bool> g_other_runs{false};

[[gnu::noinline]] void busy_elsewhere() {
  g_other_runs = true;
  for (;;) __builtin_ia32_pause();
}

// After a call, so that it is a call and not a jump: the caller stays on the stack.
inline void stay() {
  asm volatile("" ::: "memory");
}

[[gnu::noinline]] int read_null(const volatile int* pointer) {
  return *pointer;
}
[[gnu::noinline]] void write_null(volatile int* pointer) {
  *pointer = 1;
}
[[gnu::noinline]] void write_code() {
  *reinterpret_cast<volatile char*>(&busy_elsewhere) = 0;
}
[[gnu::noinline]] void write_constant(const char* text) {
  *const_cast<volatile char*>(text) = 'x';
}
[[gnu::noinline]] void wild_jump() {
  void (*volatile target)() = reinterpret_cast<void (*)()>(0x1234'5678'9000);
  target();
  stay();
}
[[gnu::noinline]] void run_data() {
  static unsigned char code[] = {0xc3};
  void (*volatile target)() = reinterpret_cast<void (*)()>(code);
  target();
  stay();
}
volatile int g_no_end = -1;
[[gnu::noinline]] int overflow_stack(int depth) {
  volatile char fill[512];
  fill[depth % 512] = 1;
  if (depth == g_no_end) return 0;
  return overflow_stack(depth + 1) + fill[0];
}
[[gnu::noinline]] int divide(volatile int* by) {
  int value = 1;
  asm volatile("" : "+r"(value));
  return value / *by;
}
[[gnu::noinline]] void call_abort() {
  std::abort();
}
[[gnu::noinline]] void fail_assertion() {
  KELDA_ASSERT(g_other_runs && false);
}
[[gnu::noinline]] void throw_uncaught() {
  throw std::runtime_error("nobody catches this");
}
[[gnu::noinline]] void unknown_call() {
  syscall(SYS_socket, 1, 2, 3);
  stay();
}
[[gnu::noinline]] void use_after_unmap() {
  auto* memory =
      static_cast<volatile char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  memory[0] = 1;
  munmap(const_cast<char*>(memory), 4096);
  memory[0] = 2;
}
// The page-fault handler's own stack cannot be reached when the task state is wild: the double-fault stack must do.
[[gnu::noinline]] void double_fault() {
  struct [[gnu::packed]] {
    unsigned short limit;
    unsigned long base;
  } table;
  asm volatile("sidt %0" : "=m"(table));
  // Only the gates up to 12 (stack fault) are within the limit: a page fault has no gate, and that is a double fault.
  table.limit = 13 * 16 - 1;
  asm volatile("lidt %0" ::"m"(table));
  read_null(nullptr);
  stay();
}
[[gnu::noinline]] void bad_opcode() {
  asm volatile("ud2");
}
[[gnu::noinline]] void write_optimistic() {
  auto region = kernel::reserve_region(1 << 30);
  auto set = kernel::set_optimistic_range(*region, 1 << 30);
  if (set) *reinterpret_cast<volatile int*>(*region + 8192) = 1;
}

// Overcommitted memory that is really touched.
[[gnu::noinline]] void touch_too_much() {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  auto* memory = static_cast<volatile char*>(
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  for (std::size_t at = 0; at < kBytes; at += 4096) memory[at] = 1;
}

// Leaves for a stack of the machine's own: what runs there may go too deep as well.
void overflow_other_stack(std::uint64_t top) {
  kelda_switch_stack(top, [] { overflow_stack(0); });
}
// "overflow-trap-stack-N": that of interrupt stack table slot N.
constexpr std::string_view kTrapStack = "overflow-trap-stack-";
void overflow_trap_stack(std::size_t slot) {
  overflow_other_stack(kernel::this_cpu().task_state.stacks[slot - 1]);
}

struct Fault {
  const char* name;
  void (*run)();
};
const Fault kFaults[] = {
    {"read-null",
     [] {
       read_null(nullptr);
       stay();
     }},
    {"write-null",
     [] {
       write_null(nullptr);
       stay();
     }},
    {"write-code", write_code},
    {"write-constant",
     [] {
       write_constant("constant");
       stay();
     }},
    {"wild-jump", wild_jump},
    {"run-data", run_data},
    {"overflow-stack", [] { overflow_stack(0); }},
    {"overflow-thread-stack", [] { std::thread([] { overflow_stack(0); }).join(); }},
    {"overflow-fiber-stack",
     [] {
       auto ended = runtime::Runtime::run({}, [](runtime::Runtime&) {
         auto& core = runtime::Core::current();
         if (core.spawn([] { overflow_stack(0); }, {.name = "glutton"})) core.sleep_until(runtime::kNever);
         return 0;
       });
       std::printf("survived %d\n", ended.has_value());
     }},
    {"overflow-boot-stack", [] { overflow_other_stack(reinterpret_cast<std::uint64_t>(kelda_boot_stack)); }},
    {"overflow-idle-stack", [] { overflow_other_stack(kernel::this_cpu().idle_stack_top); }},
    {"divide",
     [] {
       int zero = 0;
       divide(&zero);
     }},
    {"abort", call_abort},
    {"assert", fail_assertion},
    {"throw", throw_uncaught},
    {"unknown-call", unknown_call},
    {"use-after-unmap", use_after_unmap},
    {"double-fault", double_fault},
    {"bad-opcode", bad_opcode},
    {"write-optimistic", write_optimistic},
    {"touch-too-much", touch_too_much},
};

int run(std::string_view name) {
  if (name == "exit-7") std::exit(7);
  if (name == "hang") {
    std::thread busy(busy_elsewhere);
    while (!g_other_runs) std::this_thread::yield();
    std::puts("waiting");
    busy.join();
  }
  if (name != "overflow-thread-stack" && std::thread::hardware_concurrency() > 1) {
    std::thread(busy_elsewhere).detach();
    while (!g_other_runs) std::this_thread::yield();
  }
  if (name.starts_with(kTrapStack)) overflow_trap_stack(static_cast<std::size_t>(name[kTrapStack.size()] - '0'));
  for (const Fault& fault : kFaults) {
    if (name == fault.name) {
      fault.run();
      std::printf("survived %s\n", fault.name);
      return 0;
    }
  }
  std::fprintf(stderr, "unknown fault\n");
  return 2;
}

}  // namespace kelda::kernel_fault

int main(int argc, char** argv) {
  if (!kelda::kernel::running_bare()) {
    std::puts("this program is made to be booted");
    return 0;
  }
  return kelda::kernel_fault::run(argc > 1 ? argv[1] : "");
}
