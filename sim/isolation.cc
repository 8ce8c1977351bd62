#include "sim/isolation.h"

#include <fmt/format.h>

#include "history/check.h"

namespace kelda::sim {

// As long as each other, so that a range from the first to the last has all of them.
std::string Isolation::name(history::Key key) {
  return fmt::format("txn:{:08}", key);
}

std::vector<history::Key> Isolation::keys_of(std::uint64_t round) {
  std::vector<history::Key> keys;
  for (history::Key i = 0; i < kKeysARound; ++i) keys.push_back(round * kKeysARound + i);
  return keys;
}

std::string Isolation::verdict() const {
  const auto report = history::check(recorder.history());
  if (!report) return report.error().to_string();
  const bool good = report->satisfies(history::Level::kStrictSerializable) && report->findings.empty();
  return good ? "" : report->to_string();
}

}  // namespace kelda::sim
