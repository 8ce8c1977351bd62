// What a simulation leaves behind, in memory of fixed shape: a parent process reads it even if the simulation aborted.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace kelda::sim {

struct Report {
  static constexpr std::size_t kLines = 400, kLineBytes = 192;
  using Line = std::array<char, kLineBytes>;

  bool finished = false;
  bool failed = false;
  Line kind{};                       // "lost write": what the minimiser looks for again
  std::array<char, 4096> failure{};  // expected, found, last acknowledgement
  std::uint64_t trace_hash = 0, steps = 0, virtual_ns = 0, real_ns = 0;
  std::uint64_t operations = 0, unknown_outcomes = 0, refused = 0;
  std::uint64_t starts = 0, faults = 0, audits = 0;
  std::uint64_t failed_at_ns = 0;
  std::array<char, 256> note{};  // why it ended early, without being a failure

  // The last events, lines[event_count % kLines] being the oldest.
  std::uint64_t event_count = 0;
  std::array<Line, kLines> lines{};

  std::string_view failure_text() const { return failure.data(); }
};

// Cuts what does not fit.
template <std::size_t n>
void assign(std::array<char, n>& to, std::string_view text) {
  const std::size_t length = text.size() < n - 1 ? text.size() : n - 1;
  for (std::size_t i = 0; i < length; ++i) to[i] = text[i];
  to[length] = 0;
}

}  // namespace kelda::sim
