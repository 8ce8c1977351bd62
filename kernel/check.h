// Assertions inside the kernel: straight to the panic handler, without the C library. Private to kernel/.
#pragma once

namespace kelda::kernel {
[[noreturn]] void check_failed(const char* expression, const char* file, int line);
}

#define KERNEL_CHECK(expr) \
  (__builtin_expect(!!(expr), 1) ? void(0) : ::kelda::kernel::check_failed(#expr, __FILE__, __LINE__))
