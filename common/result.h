// Errors as values. Nothing in Kelda's own code throws.
//
// Contract: a function that can fail returns Result<T>. The compiler rejects a discarded Result. TRY(expr) yields
// the value or returns the error to the caller. An Error says what happened and, where a person reads it, what to do.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <utility>

namespace kelda {

enum class Code : std::uint8_t {
  kNotFound,         // no such key, tree or file
  kExists,           // it is there already
  kInvalidArgument,  // the caller's input is wrong; the message says how
  kTooLarge,         // key, value, transaction or request over its limit
  kConflict,         // the transaction lost against another one: roll back and try again
  kRestart,          // an optimistic read met a concurrent change; internal, never leaves btree/
  kAborted,          // the transaction was rolled back
  kNoSpace,          // the disk is full: writes fail, reads and deletes go on
  kOutOfMemory,      // the memory bound is reached
  kIo,               // the device reported an error
  kCorrupt,          // a checksum or an invariant on disk does not hold
  kForeignDisk,      // the disk holds something that is not Kelda's
  kBlankDisk,        // the disk holds only zeroes where a superblock belongs
  kNewerFormat,      // written by a newer version
  kTooSmall,         // disk or memory too small
  kBusy,             // in use by another process, or port taken
  kNoFlush,          // the device cannot make writes durable
  kUnsupported,      // not available on this platform or device
  kFailed,           // the engine met a failed write or flush and has stopped acknowledging
  kTimeout,
  kLockTimeout,      // another transaction held the lock for longer than the caller wanted to wait
  kSelfDeadlock,     // the lock is held by another open transaction of the very thread that asks for it
  kClosed,           // end of stream, or shut down
};

const char* code_name(Code code);

class [[nodiscard]] Error {
 public:
  explicit Error(Code code) : code_(code) {}
  Error(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  Code code() const { return code_; }
  // For people: empty when the code says all there is to say.
  const std::string& message() const { return message_; }
  std::string to_string() const;
  // The same error with "context: " before its message.
  Error with_context(const std::string& context) &&;

 private:
  Code code_;
  std::string message_;
};

template <class T = void>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using std::expected<T, Error>::expected;
  Result(Error error) : std::expected<T, Error>(std::unexpect, std::move(error)) {}
  Result(Code code) : std::expected<T, Error>(std::unexpect, Error(code)) {}
  bool failed_with(Code code) const { return !this->has_value() && this->error().code() == code; }
};

}  // namespace kelda

// Yields the value of a Result, or returns its error from the enclosing function. May be nested.
#define TRY(...) KELDA_TRY_AS(__COUNTER__, __VA_ARGS__)
#define KELDA_TRY_AS(id, ...) KELDA_TRY_NAMED(id, __VA_ARGS__)
#define KELDA_TRY_NAMED(id, ...)                                         \
  ({                                                                     \
    auto kelda_try_##id = (__VA_ARGS__);                                 \
    if (!kelda_try_##id) return std::move(kelda_try_##id).error();       \
    *std::move(kelda_try_##id);                                          \
  })
