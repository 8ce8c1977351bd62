// Tells AddressSanitizer and ThreadSanitizer about fiber switches; nothing at all in other builds.
//
// Use: before_switch(from, to, from ends?), jump, then after_switch(self) on the other side.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace kelda::runtime {

struct SanitizerFiber {
  void* fake_stack = nullptr;  // ASan's own, saved while switched out
  const void* stack_bottom = nullptr;
  std::size_t stack_bytes = 0;
  void* tsan_fiber = nullptr;

  void create([[maybe_unused]] const void* bottom, [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
    stack_bottom = bottom;
    stack_bytes = bytes;
    __asan_unpoison_memory_region(bottom, bytes);  // frames of a fiber that was dropped before
#endif
#if defined(__SANITIZE_THREAD__)
    tsan_fiber = __tsan_create_fiber(0);
#endif
  }
  void destroy() {
#if defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(tsan_fiber);
    tsan_fiber = nullptr;
#endif
  }
  // The context of the thread itself.
  void adopt_thread() {
#if defined(__SANITIZE_THREAD__)
    tsan_fiber = __tsan_get_current_fiber();
#endif
  }
};

inline void before_switch([[maybe_unused]] SanitizerFiber& from, [[maybe_unused]] const SanitizerFiber& to,
                          [[maybe_unused]] bool from_ends) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(from_ends ? nullptr : &from.fake_stack, to.stack_bottom, to.stack_bytes);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.tsan_fiber, 0);  // one thread: what the one did comes before what the other does
#endif
}

// `from` is who switched to us; its bounds are learnt for a thread's own stack, which nobody declared.
inline void after_switch([[maybe_unused]] SanitizerFiber& self, [[maybe_unused]] SanitizerFiber& from) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(self.fake_stack, &bottom, &bytes);
  if (from.stack_bottom == nullptr) {
    from.stack_bottom = bottom;
    from.stack_bytes = bytes;
  }
#endif
}

}  // namespace kelda::runtime
