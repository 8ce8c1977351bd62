// The bare-metal part: what makes an ordinary static program boot without an operating system.
//
// Contract. One ELF, two lives. Started by Linux, it enters at the C library's _start, running_bare() is false and
// nothing else of kernel/ may be called. Entered through the PVH note, kernel/ sets up the machine (boot.S, start.cc),
// then jumps to the same _start in ring 0 with argv made from the command line, and serves the few system calls that
// the C library makes (docs/libc-shim.md).
//
// Address space, bare:
//   0                     page 0, never mapped
//   4 KiB .. end of RAM   identity map of all RAM, writable, never executable; inside it the image, W^X in 4 KiB pages,
//                         and the page where other CPUs start, read-only
//   kHeapBase ...         program break (paging.h: demand-zero)
//   kMmapBase ...         mmap: demand-zero areas, thread and fiber stacks
//   kReservedBase ...     reserve_region(): whole 512 GiB slots, entries written by their owner (the buffer pool)
//   kMmioBase ...         map_mmio()
//
// Files compiled for interrupt context or early boot use general registers only: interrupts never save vector state.
#pragma once

#include <cstdint>
#include <string_view>

namespace kelda::kernel {

// False in a Linux process. Constant for the life of the program; callable from anywhere, also before main.
bool running_bare();

// Everything below: bare only.

// The whole command line as the hypervisor gave it. argv is its words, without those that describe devices
// ("virtio_mmio.device=..."), quotes respected; the first word is argv[0].
std::string_view command_line();

// Ends the virtual machine. With QEMU's isa-debug-exit at port 0xf4 its status is (code + 1) << 1 | 1, so that 1 is
// left to QEMU's own failures (other codes than 0 to 126 are told as 126); else power-off through ACPI; else a triple
// fault (needs -no-reboot to end there). Callable from any CPU and context.
inline constexpr int kHighestExitCode = 126;
[[noreturn]] void exit_vm(int code);
// Reboots: ACPI reset register, keyboard controller, triple fault.
[[noreturn]] void reset_vm();

// A non-maskable interrupt from the host (QEMU's `nmi`) does the same to a machine that hangs.
// Prints message, registers and a symbolised backtrace of every CPU, then ends the machine with kPanicExitCode.
[[noreturn]] void panic(const char* message);
inline constexpr int kPanicExitCode = 101;
// What a CPU was doing, for the panic report ("fiber checkpoint"): called for each CPU while all others are stopped, in
// any state; must not allocate, lock or wait. May return null.
void set_cpu_describer(const char* (*describe)(std::uint32_t cpu));

}  // namespace kelda::kernel
