// Calls between the kernel's own files. Nothing outside kernel/ includes this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/types.h"
#include "kernel/start_info.h"

namespace kelda::kernel {

// start.cc. The kernel's first message on a machine that cannot work: no symbols, no other CPUs.
[[noreturn]] void die_early(std::string_view message);

// emulation.cc. The running hypervisor is an emulator (QEMU's TCG): string instructions are slow there.
void init_emulation();
bool running_emulated();

// memory.cc: takes RAM that is not in use from the map; once, before paging.
struct RamRange {
  std::uint64_t begin, end;  // whole frames
};
void init_frames(const StartInfo& info);
// RAM as described, sorted; for the identity map.
struct RamRanges {
  const RamRange* ranges;
  std::size_t count;
};
RamRanges ram_ranges();

// paging.cc
void init_paging();
// A mapped stack with an unmapped page below it; returns its top (16-byte aligned). Never freed.
std::uint64_t make_kernel_stack(std::size_t size_bytes);
// Permissions of image pages, for mprotect (relocation read-only).
bool protect_image(std::uint64_t begin, std::uint64_t end, bool writable, bool executable);
// A page of the identity map below 2 MiB: code from now on, no longer writable.
void make_executable(std::uint64_t page);
bool is_image(std::uint64_t begin, std::uint64_t end);
bool is_image_text(std::uint64_t address);
// Kernel address space without frames.
std::uint64_t reserve_kernel_addresses(std::size_t size_bytes);

// time.cc
void init_clock();
void init_timer_this_cpu();
void note_timer_fired();
// Measures the clock rate again once it can be done well; cheap otherwise.
void refine_clock();

// random.cc
void init_random();

// console.cc; the second without the lock, for panics.
void init_console();
void console_write_raw(std::string_view text);

// acpi.cc, mp_table.cc
void init_acpi(const StartInfo& info);
void init_power_button();       // power.cc
[[noreturn]] void power_off();  // ACPI, else a triple fault

// smp.cc
void start_other_cpus();
// Sends one CPU that has not come up another start-up interrupt.
void nudge_cpu(std::uint32_t index);

// command_line.cc: keeps a copy.
void set_command_line(const char* text);

}  // namespace kelda::kernel
