// What a fiber holds and must not hold while it waits: rule "no latch across a park" (core.h), checked in debug builds.
//
// Contract: the layer that owns the latches records each one that the running fiber takes and releases. Core::park() and
// yield() abort when any is on record, unless the fiber is inside a WaitScope: there the owner of the latches answers for
// the wait (it is a wait for another latch, in the order of latches, or for a page that is being read). A fiber's record
// is touched by its own core only. Without KELDA_DEBUG_CHECKS all of this is empty.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/assert.h"
#include "runtime/core.h"

namespace kelda::runtime {

class HeldLatches {
 public:
  // `rank` and `id` order the latches of an owner; what they mean is the owner's business.
  struct Latch {
    const void* owner;
    std::uint64_t id;
    std::uint8_t rank;
  };
  static constexpr std::size_t kMost = 128;

#ifdef KELDA_DEBUG_CHECKS
  bool none() const { return count_ == 0; }
  bool may_wait() const { return count_ == 0 || scopes_ > 0; }
  const Latch* begin() const { return latches_.data(); }
  const Latch* end() const { return latches_.data() + count_; }

  void add(const Latch& latch) {
    KELDA_ASSERT(count_ < kMost);
    latches_[count_++] = latch;
  }
  // False: it is not on record.
  bool remove(const void* owner, std::uint64_t id) {
    for (std::size_t i = count_; i-- > 0;) {
      if (latches_[i].owner != owner || latches_[i].id != id) continue;
      latches_[i] = latches_[--count_];
      return true;
    }
    return false;
  }
  bool unchecked() const { return unchecked_ > 0; }
  void set_unchecked(bool on) { on ? ++unchecked_ : --unchecked_; }
  void enter_wait() { ++scopes_; }
  void leave_wait() { --scopes_; }
  // For a fiber that begins: the last one that had this memory may have been dropped in mid-air.
  void clear() { count_ = scopes_ = unchecked_ = 0; }

 private:
  std::array<Latch, kMost> latches_;
  std::size_t count_ = 0;
  std::size_t scopes_ = 0;
  std::size_t unchecked_ = 0;
#else
  bool may_wait() const { return true; }
  void clear() {}
  void set_unchecked(bool) {}
#endif
};

// Tests of the mechanisms themselves, which must serve callers with latches too: what the running fiber latches and
// releases while this lives is not recorded. Latches must not outlive it.
class UncheckedLatches {
 public:
  UncheckedLatches() { Core::current().held_latches().set_unchecked(true); }
  ~UncheckedLatches() { Core::current().held_latches().set_unchecked(false); }
  UncheckedLatches(const UncheckedLatches&) = delete;
  UncheckedLatches& operator=(const UncheckedLatches&) = delete;
};

}  // namespace kelda::runtime
