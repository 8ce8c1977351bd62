// Threads of the program: one a CPU (cpu.h). Private to kernel/.
#pragma once

#include <cstdint>

namespace kelda::kernel {

// CPU 0 becomes the main thread.
void begin_main_thread();
// Sleeps until a thread is started on this CPU, then becomes it. Runs on the CPU's idle stack.
[[noreturn]] void idle_this_cpu();
// Time that this CPU's thread has run, without its sleeps; and that all threads have.
std::uint64_t thread_busy_ns();
std::uint64_t program_busy_ns();

}  // namespace kelda::kernel
