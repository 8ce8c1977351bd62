// Marks the functions that read page bytes between optimistic_begin() and optimistic_validate(): the bytes may change
// meanwhile, by design, and what was read is used only after it was validated (page_state.h says why that is sound).
// The thread sanitizer is told so here and nowhere else. Such a function must not be given a pointer that it follows,
// and must stay within the page whatever the bytes say.
#pragma once

#ifdef __SANITIZE_THREAD__
#define KELDA_RACY_READ __attribute__((no_sanitize("thread"), noinline))
#else
#define KELDA_RACY_READ
#endif
