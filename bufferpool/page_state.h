// The state word of a page: everything that a reader, a writer and the evictor agree on, in 64 bits.
//
//    63                    20 19           8 7 6 5 4 3 2 1 0
//   |        version         | shared count | |W|L|O|D|M|X|R|
//
//   R resident   mapped to a frame
//   X exclusive  latched for a change, a read from the device, or eviction
//   M marked     the clock hand passed; the next hit takes the slow path once and clears it (where hardware keeps no
//                reference bits)
//   D dirty      changed since its last copy went out
//   O going out  a copy is being written: nobody else writes or evicts the page
//   L in limbo   unmapped, but its frame still holds its content (not resident)
//   W waiters    somebody is queued for the page: whoever releases it wakes them
//
//   absent --miss--> X --read--> R        R --evict--> X --unmap--> L --epoch passed--> X --> absent
//                                         L --miss--> X --restore--> R      (no I/O)
//
// While X is held, others change only W and O. All changes of a part of the word are additions or single-bit operations
// of bits that their maker owns, so that they never undo each other.
//
// Memory order (a sequence lock). The reader: acquire load of the word, plain loads of the page, acquire fence, load of
// the word. The writer: CAS to X, release fence, plain stores to the page, release addition that ends X. The race that
// this tolerates: a plain load may return a byte that a writer just stored. Then the writer's fence and the reader's
// fence synchronise through that byte, and the reader's second load sees X or a newer version: what was read is thrown
// away. A word of zero is an absent page that nobody ever touched, so untouched memory is a valid state.
#pragma once

#include <atomic>
#include <cstdint>

namespace kelda::bufferpool {

using StateWord = std::atomic<std::uint64_t>;

inline constexpr std::uint64_t kResident = 1 << 0;
inline constexpr std::uint64_t kExclusive = 1 << 1;
inline constexpr std::uint64_t kMarked = 1 << 2;
inline constexpr std::uint64_t kDirty = 1 << 3;
inline constexpr std::uint64_t kGoingOut = 1 << 4;
inline constexpr std::uint64_t kLimbo = 1 << 5;
inline constexpr std::uint64_t kWaiters = 1 << 6;
inline constexpr std::uint64_t kSharedOne = 1 << 8;
inline constexpr std::uint64_t kSharedMask = 0xfff * kSharedOne;
inline constexpr std::uint64_t kVersionOne = 1 << 20;
inline constexpr std::uint64_t kVersionMask = ~(kVersionOne - 1);

// What must be unchanged for an optimistic read to stand.
inline constexpr std::uint64_t kValidateMask = kVersionMask | kExclusive | kResident;
// A page is readable at full speed when these bits of its word are kResident alone.
inline constexpr std::uint64_t kReadableMask = kResident | kExclusive | kMarked;

inline bool is_readable(std::uint64_t word) { return (word & kReadableMask) == kResident; }
inline bool is_latched(std::uint64_t word) { return (word & (kExclusive | kSharedMask)) != 0; }

// Between the plain loads of an optimistic read and the load that validates them, and between taking X and the first
// plain store. The thread sanitizer does not model fences (nor racy page reads at all: see racy_read.h).
#ifdef __SANITIZE_THREAD__
inline void fence_before_validate() {}
inline void fence_before_change() {}
#else
inline void fence_before_validate() { std::atomic_thread_fence(std::memory_order_acquire); }
inline void fence_before_change() { std::atomic_thread_fence(std::memory_order_release); }
#endif

}  // namespace kelda::bufferpool
