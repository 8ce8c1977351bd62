#include "sim/isolation.h"

#include <fmt/format.h>

#include <unordered_set>

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

namespace {

history::History without_unseen_writes_of_unknown(history::History history) {
  std::unordered_set<history::Value> seen;
  for (const history::Transaction& txn : history.transactions) {
    for (const history::Op& op : txn.ops) {
      if (!op.writes()) seen.insert(op.values.begin(), op.values.end());
    }
  }
  for (history::Transaction& txn : history.transactions) {
    if (txn.outcome != history::Outcome::kUnknown) continue;
    std::erase_if(txn.ops, [&](const history::Op& op) { return op.writes() && !seen.contains(op.values.front()); });
  }
  return history;
}

}  // namespace

std::string Isolation::verdict(bool commands_may_fail) const {
  const auto report = commands_may_fail ? history::check(without_unseen_writes_of_unknown(recorder.history()))
                                        : history::check(recorder.history());
  if (!report) return report.error().to_string();
  const bool good = report->satisfies(history::Level::kStrictSerializable) && report->findings.empty();
  return good ? "" : report->to_string();
}

}  // namespace kelda::sim
