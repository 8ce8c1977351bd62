// How often each command was called and how long it took, and which errors were answered: INFO's commandstats and
// errorstats. One set of cells a core, so that counting never shares a cache line; made when a core first counts.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "runtime/core.h"

namespace kelda::server {

class CommandStats {
 public:
  struct Counts {
    std::uint64_t calls = 0, time_ns = 0, rejected = 0, failed = 0;
  };
  // The first words of error replies.
  static constexpr std::array<std::string_view, 15> kErrors = {
      "ERR", "NOAUTH", "WRONGPASS", "NOPROTO", "EXECABORT", "NOTBUSY", "DISKFULL", "MISCONF", "IOERR", "CONFLICT", "CORRUPT",
      "OOM", "NOSCRIPT", "WRONGTYPE", "NOPERM"};

  explicit CommandStats(std::size_t commands) : commands_(commands) {}
  ~CommandStats();
  CommandStats(const CommandStats&) = delete;

  // Of the command with this number (CommandTable). A call that was carried out; `failed`: it answered an error.
  void called(std::size_t command, std::uint64_t time_ns, bool failed);
  // Refused before it ran.
  void rejected(std::size_t command);
  // `reply`: begins with an error, "-ERR what".
  void error(std::string_view reply);

  Counts counts(std::size_t command) const;
  std::uint64_t errors(std::size_t error) const;
  void reset();

 private:
  using Cell = std::atomic<std::uint64_t>;
  static constexpr std::size_t kKinds = 4;  // of Counts

  std::size_t cells() const { return commands_ * kKinds + kErrors.size(); }
  void add(std::size_t cell, std::uint64_t amount);
  std::uint64_t total(std::size_t cell) const;

  const std::size_t commands_;
  std::array<std::atomic<Cell*>, runtime::Core::kMaxCores> cores_{};
  // Totals at the last reset.
  std::atomic<Cell*> base_{nullptr};
};

}  // namespace kelda::server
