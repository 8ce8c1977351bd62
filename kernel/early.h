// Included first into every file that runs before the C library is set up or in interrupt context (see
// kelda_interrupt_context in CMakeLists.txt). The compiler may turn plain C++ into calls of memcpy and friends; the C
// library's are chosen at start (IFUNC) and use vector registers, so these go to kernel/early_memory.S instead.
// (std::string_view::find would call memchr, whose C++ overloads cannot be redirected: write a loop. The test
// kernel_symbols checks that nothing slips through.)
#pragma once

#include <cstddef>

extern "C" {
void* memcpy(void* to, const void* from, std::size_t size) noexcept __asm__("kelda_early_memcpy");
void* memmove(void* to, const void* from, std::size_t size) noexcept __asm__("kelda_early_memmove");
void* memset(void* to, int byte, std::size_t size) noexcept __asm__("kelda_early_memset");
std::size_t strlen(const char* text) noexcept __asm__("kelda_early_strlen");
int memcmp(const void* a, const void* b, std::size_t size) noexcept __asm__("kelda_early_memcmp");
}
