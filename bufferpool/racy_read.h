// Marks the functions that read page bytes between optimistic_begin() and optimistic_validate(): the bytes may change
// meanwhile, by design, and what was read is used only after it was validated (page_state.h says why that is sound).
// The thread sanitizer is told so here and nowhere else. Such a function must not be given a pointer that it follows,
// and must stay within the page whatever the bytes say.
#pragma once

#include <cstddef>
#include <cstring>

#ifdef __SANITIZE_THREAD__
#define KELDA_RACY_READ __attribute__((no_sanitize("thread"), noinline))
#else
#define KELDA_RACY_READ
#endif

namespace kelda::bufferpool {

// memcpy from a page that may change meanwhile: the sanitizer watches memcpy itself.
KELDA_RACY_READ inline void racy_copy(void* to, const std::byte* from, std::size_t bytes) {
#ifdef __SANITIZE_THREAD__
  for (std::size_t i = 0; i < bytes; ++i) static_cast<volatile std::byte*>(to)[i] = from[i];
#else
  std::memcpy(to, from, bytes);
#endif
}

}  // namespace kelda::bufferpool
