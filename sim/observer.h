// Who wants to record the history of operations as the clients see it, for example to judge isolation afterwards.
//
// Every operation is announced by invoke() and ends with exactly one of the others: ok() (it happened; reads carry what
// was read), fail() (it did not happen), info() (nobody knows). One process has one operation at a time; after info()
// its number is not used again.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace kelda::sim {

struct ObservedStep {
  enum class Kind : std::uint8_t { kRead, kWrite, kAppend };
  Kind kind = Kind::kRead;
  bool list = false;  // a list that grows by appends, or else a register
  std::string key;
  std::vector<std::uint64_t> values;  // written, appended, or (in ok) read: a register's one value, none if absent
};

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void invoke(std::uint64_t process, std::span<const ObservedStep> steps) = 0;
  virtual void ok(std::uint64_t process, std::span<const ObservedStep> steps) = 0;
  virtual void fail(std::uint64_t process, std::span<const ObservedStep> steps) = 0;
  virtual void info(std::uint64_t process, std::span<const ObservedStep> steps) = 0;
};

}  // namespace kelda::sim
