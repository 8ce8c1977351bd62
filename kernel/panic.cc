// Panic: stop every CPU, print what each was doing, end the machine with a failing exit code. Takes no lock and no
// memory.
#include "kernel/panic.h"

#include <atomic>

#include "kernel/apic.h"
#include "kernel/backtrace.h"
#include "kernel/check.h"
#include "kernel/cpu_state.h"
#include "kernel/internal.h"
#include "kernel/kernel.h"
#include "kernel/machine.h"
#include "kernel/symbols.h"
#include "kernel/time.h"

namespace kelda::kernel {

namespace {

constexpr std::uint32_t kNobody = ~0u;
constinit std::atomic<std::uint32_t> g_panicking{kNobody};
constinit std::atomic<const char* (*)(std::uint32_t)> g_describer{nullptr};

void print(std::string_view text) {
  console_write_raw(text);
}

void print_hex(std::uint64_t value, int digits = 16) {
  char text[16];
  for (int i = 0; i < digits; ++i) text[i] = "0123456789abcdef"[value >> 4 * (digits - 1 - i) & 15];
  print({text, static_cast<std::size_t>(digits)});
}

void print_decimal(std::int64_t value) {
  char text[24];
  std::size_t at = sizeof text;
  std::uint64_t rest = value < 0 ? 0 - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value);
  do text[--at] = static_cast<char>('0' + rest % 10);
  while (rest /= 10);
  if (value < 0) text[--at] = '-';
  print({text + at, sizeof text - at});
}

void print_frame(std::uint64_t address, FrameKind kind) {
  bool in_text = is_image_text(address);
  // A return address may lie just behind a function that ends with a call: the call itself names the function.
  bool is_return = kind != FrameKind::kInstruction;
  Symbol symbol = in_text ? find_symbol(address - is_return) : Symbol{};
  // Nothing returns to the first instruction of a function: a pointer to it that lies on the stack.
  if (kind == FrameKind::kGuess && find_symbol(address).offset == 0) return;
  print("    ");
  print_hex(address);
  if (symbol.name[0]) {
    print(" ");
    print(symbol.name);
    print("+0x");
    print_hex(symbol.offset + is_return, symbol.offset < 0xffff ? 4 : 8);
  }
  print(kind == FrameKind::kGuess ? " ?\n" : "\n");
}

void print_registers(const TrapFrame& f) {
  struct Named {
    const char* name;
    std::uint64_t value;
  };
  const Named registers[] = {{"rip", f.rip}, {"rsp", f.rsp}, {"rbp", f.rbp}, {"rfl", f.rflags}, {"rax", f.rax},
                             {"rbx", f.rbx}, {"rcx", f.rcx}, {"rdx", f.rdx}, {"rsi", f.rsi},    {"rdi", f.rdi},
                             {"r8 ", f.r8},  {"r9 ", f.r9},  {"r10", f.r10}, {"r11", f.r11},    {"r12", f.r12},
                             {"r13", f.r13}, {"r14", f.r14}, {"r15", f.r15}};
  int column = 0;
  for (const Named& r : registers) {
    print("  ");
    print(r.name);
    print(" ");
    print_hex(r.value);
    if (++column % 4 == 0) print("\n");
  }
  print("\n");
}

void print_cpu(std::uint32_t index, const TrapFrame& frame) {
  print("cpu ");
  print_decimal(index);
  print(":");
  if (auto describe = g_describer.load(std::memory_order_acquire)) {
    if (const char* text = describe(index)) {
      print(" ");
      print(text);
    }
  }
  print("\n");
  print_registers(frame);
  walk_stack(frame.rip, frame.rsp, frame.rbp, print_frame);
}

bool is_other_running(std::uint32_t index) {
  return index != this_cpu().index && g_cpus[index].started.load(std::memory_order_acquire);
}

void stop_others() {
  for (std::uint32_t i = 0; i < g_cpu_count; ++i) {
    if (is_other_running(i)) send_nmi(g_cpus[i].apic_id);
  }
  // A CPU whose host thread does not run in this time is reported as such.
  constexpr int kSpins = 20'000'000;
  for (std::uint32_t i = 0; i < g_cpu_count; ++i) {
    for (int spins = 0; is_other_running(i) && spins < kSpins && !g_cpus[i].stopped.load(std::memory_order_acquire);
         ++spins)
      pause();
  }
}

// Only one CPU reports; a second panic on the same CPU, while it reports, ends at once.
void claim() {
  asm volatile("cli");
  std::uint32_t expected = kNobody, self = this_cpu().index;
  if (g_panicking.compare_exchange_strong(expected, self)) return;
  if (expected != self) halt_forever();
  print("\nkelda: panic while reporting a panic\n");
  exit_vm(kPanicExitCode);
}

[[noreturn]] void report(const TrapFrame& frame) {
  std::uint32_t self = this_cpu().index;
  stop_others();
  print_cpu(self, frame);
  for (std::uint32_t i = 0; i < g_cpu_count; ++i) {
    const CpuState& cpu = g_cpus[i];
    if (!is_other_running(i)) continue;
    if (cpu.stopped.load(std::memory_order_acquire)) {
      print_cpu(i, cpu.stop_frame);
    } else {
      print("cpu ");
      print_decimal(i);
      print(": does not answer\n");
    }
  }
  print("kelda: end of panic report\n");
  exit_vm(kPanicExitCode);
}

void print_heading(const char* what) {
  print("\nkelda: panic on cpu ");
  print_decimal(this_cpu().index);
  print(" after ");
  print_decimal(static_cast<std::int64_t>(monotonic_ns() / 1'000'000));
  print(" ms: ");
  print(what);
}

// The caller's registers as far as they are still known.
[[gnu::noinline]] TrapFrame here() {
  TrapFrame frame{};
  auto* rbp = static_cast<std::uint64_t*>(__builtin_frame_address(0));
  frame.rip = rbp[1];
  frame.rbp = rbp[0];
  frame.rsp = reinterpret_cast<std::uint64_t>(rbp + 2);
  return frame;
}

}  // namespace

void panic_in_trap(const char* what, const TrapFrame& frame, std::uint64_t address) {
  claim();
  print_heading(what);
  if (frame.vector == kVectorPageFault || address) {
    print(frame.vector != kVectorPageFault ? ", fault address 0x"
          : frame.error & kFaultWrite      ? ", write to 0x"
          : frame.error & kFaultFetch      ? ", jump to 0x"
                                           : ", read of 0x");
    print_hex(address);
  }
  print(" (vector ");
  print_decimal(static_cast<std::int64_t>(frame.vector));
  print(", error 0x");
  print_hex(frame.error, 4);
  print(")\n");
  report(frame);
}

void panic(const char* message) {
  claim();
  print_heading(message);
  print("\n");
  report(here());
}

void panic_with_number(const char* message, std::int64_t number) {
  claim();
  print_heading(message);
  print(" (");
  print_decimal(number);
  print(")\n");
  report(here());
}

void check_failed(const char* expression, const char* file, int line) {
  claim();
  print_heading("kernel check failed: ");
  print(expression);
  print(" at ");
  print(file);
  print(":");
  print_decimal(line);
  print("\n");
  report(here());
}

void stop_for_panic(const TrapFrame& frame) {
  CpuState& cpu = this_cpu();
  cpu.stop_frame = frame;
  cpu.stopped.store(true, std::memory_order_release);
  // Nobody panics: the host asks. It interrupts every CPU; one of them reports.
  std::uint32_t expected = kNobody;
  if (!g_panicking.compare_exchange_strong(expected, cpu.index)) halt_forever();
  print_heading("non-maskable interrupt, asked for by the host\n");
  report(frame);
}

void set_cpu_describer(const char* (*describe)(std::uint32_t cpu)) {
  g_describer.store(describe, std::memory_order_release);
}

}  // namespace kelda::kernel
