// Checks of the impossible. KELDA_ASSERT stays on in release builds and must be cheap; KELDA_DEBUG_ASSERT is for
// checks that cost, and is compiled out unless KELDA_DEBUG_CHECKS is defined. Both abort: hosted with a core, bare
// through the panic handler. Bad input and device errors are never asserted: they are Errors.
#pragma once

namespace kelda {
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);
}

#define KELDA_ASSERT(expr) \
  (__builtin_expect(!!(expr), 1) ? void(0) : ::kelda::assertion_failed(#expr, __FILE__, __LINE__))

#ifdef KELDA_DEBUG_CHECKS
#define KELDA_DEBUG_ASSERT(expr) KELDA_ASSERT(expr)
#else
#define KELDA_DEBUG_ASSERT(expr) void(0)
#endif
