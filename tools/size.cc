#include <cctype>
#include <charconv>
#include <cstdio>

#include "runtime/machine.h"
#include "tools/commands.h"

namespace kelda::tools {

bool parse_size(const std::string& text, std::uint64_t& bytes) {
  std::uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{} || at == text.data()) return false;
  unsigned shift = 0;
  const char* suffix = at;
  if (suffix != end) {
    switch (std::toupper(static_cast<unsigned char>(*suffix))) {
      case 'K': shift = 10; break;
      case 'M': shift = 20; break;
      case 'G': shift = 30; break;
      case 'T': shift = 40; break;
      default: return false;
    }
    ++suffix;
    if (suffix != end && (*suffix == 'i' || *suffix == 'I')) ++suffix;
    if (suffix != end && (*suffix == 'b' || *suffix == 'B')) ++suffix;
  }
  if (suffix != end || number > (~std::uint64_t{0} >> shift)) return false;
  bytes = number << shift;
  return true;
}

std::string format_size(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  const bool whole = value == static_cast<double>(static_cast<std::uint64_t>(value));
  std::snprintf(text, sizeof text, whole ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

bool parse_duration(const std::string& text, std::uint64_t& seconds) {
  if (text == "off") {
    seconds = 0;
    return true;
  }
  std::uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{} || at == text.data() || end - at > 1) return false;
  std::uint64_t unit = 1;
  if (at != end) {
    switch (*at) {
      case 's': break;
      case 'm': unit = 60; break;
      case 'h': unit = 3600; break;
      case 'd': unit = 86'400; break;
      default: return false;
    }
  }
  constexpr std::uint64_t kMost = 100 * 365 * 86'400ull;
  if (number > kMost / unit) return false;
  seconds = number * unit;
  return true;
}

Result<std::uint64_t> memory_to_use(std::uint64_t asked_bytes, std::uint64_t hosted_default_bytes) {
  const runtime::MachineInfo machine = runtime::machine_info();
  // Bare, what is not free is never to be had. Hosted, what others use may be given up, but not more than there is.
  const std::uint64_t most_bytes = machine.bare ? machine.available_bytes : machine.memory_bytes;
  if (asked_bytes > most_bytes && most_bytes != 0) {
    return Error(Code::kOutOfMemory, "--memory " + format_size(asked_bytes) + " is more than this machine has: " +
                                         format_size(most_bytes) + (machine.bare ? " are free" : "") + "; give less");
  }
  if (asked_bytes != 0) return asked_bytes;
  return machine.bare ? machine.available_bytes - machine.available_bytes / 8 : hosted_default_bytes;
}

}  // namespace kelda::tools
