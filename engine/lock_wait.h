// How long one waits for locks at most, and the errors of those who did not get them.
#pragma once

#include <string>

#include "btree/btree.h"
#include "kelda/kelda.h"
#include "runtime/core.h"

namespace kelda::engine {

// kNever for kNoLockTimeout, and for what would end after the clock.
inline runtime::TimeNs lock_deadline_ns(std::uint64_t timeout_us) {
  const runtime::TimeNs now_ns = timeout_us == kNoLockTimeout ? runtime::kNever : runtime::now_ns();
  return timeout_us >= (runtime::kNever - now_ns) / 1000 ? runtime::kNever : now_ns + timeout_us * 1000;
}

inline Error key_too_long(std::size_t bytes) {
  return Error(Code::kTooLarge, "a key has at most " + std::to_string(btree::kMaxKeyBytes) + " bytes, this one has " +
                                    std::to_string(bytes));
}

// `what`: "a key", "the tree 'name'".
inline Error lock_timeout(const std::string& what, std::uint64_t timeout_us) {
  return Error(Code::kLockTimeout, "another transaction has held the lock of " + what + " for longer than the " +
                                       std::to_string(timeout_us / 1000) +
                                       " ms that this one may wait (lock_timeout_us): end that transaction, or try again");
}

inline Error self_deadlock(const std::string& what) {
  return Error(Code::kSelfDeadlock, "this thread has another transaction open that holds the lock of " + what +
                                        (what == "a key" ? " (this one, or one that shares its lock)" : "") +
                                        ", and would wait for itself: end that transaction first, or do both in one");
}

}  // namespace kelda::engine
