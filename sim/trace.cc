#include "sim/trace.h"

#include "common/prng.h"
#include "runtime/core.h"

namespace kelda::sim {

namespace {

std::uint64_t fold(std::uint64_t hash, std::string_view text) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;  // FNV-1a
  return Prng(hash).next();
}

// Values are bytes of any kind; terminals and JSON take text.
std::string printable(std::string text) {
  for (char& c : text) {
    if ((c < ' ' && c != '\n') || c > '~') c = '?';
  }
  return text;
}

}  // namespace

void Trace::add(std::string_view text) {
  const std::string line = printable(fmt::format("{:11.6f} {}", static_cast<double>(runtime::now_ns()) / 1e9, text));
  assign(report_.lines[report_.event_count % Report::kLines], line);
  ++report_.event_count;
  report_.trace_hash = fold(report_.trace_hash, line);
}

void Trace::fail(std::string_view kind, std::string_view what) {
  event("VIOLATION {}: {}", kind, what);
  if (report_.failed) return;
  report_.failed = true;
  report_.failed_at_ns = runtime::now_ns();
  assign(report_.kind, kind);
  assign(report_.failure, printable(std::string(what)));
}

}  // namespace kelda::sim
