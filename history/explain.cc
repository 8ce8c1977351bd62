#include "history/explain.h"

namespace kelda::history {

namespace {

constexpr std::size_t kShownValues = 8;

std::string describe_op(const Op& op) {
  const std::string key = describe_key(op.key);
  switch (op.kind) {
    case OpKind::kAppend:
      return "append " + std::to_string(op.values[0]) + " to " + key;
    case OpKind::kWrite:
      return "write " + key + " = " + std::to_string(op.values[0]);
    case OpKind::kReadRegister:
      return "read " + key + " = " + (op.values.empty() ? "absent" : std::to_string(op.values[0]));
    case OpKind::kReadList:
      break;
  }
  std::string text = "read " + key + " = [";
  const std::size_t skipped = op.values.size() > kShownValues ? op.values.size() - kShownValues : 0;
  if (skipped > 0) text += "(" + std::to_string(skipped) + " more)";
  for (std::size_t i = skipped; i < op.values.size(); ++i) text += (i > 0 ? " " : "") + std::to_string(op.values[i]);
  return text + "]";
}

std::string name(TxnIndex txn) {
  return "T" + std::to_string(txn);
}

std::string describe_edge(const HistoryIndex& index, const Edge& edge) {
  const auto before = [&] { return describe_version(index, edge.before); };
  const auto after = [&] { return describe_version(index, edge.after); };
  switch (edge.kind) {
    case Dependency::kWw:
      return name(edge.to) + " replaced " + before() + ", which " + name(edge.from) + " wrote, by " + after();
    case Dependency::kWr:
      return name(edge.to) + " read " + before() + ", which " + name(edge.from) + " wrote";
    case Dependency::kRw:
      return name(edge.from) + " read " + before() + ", and " + name(edge.to) + " wrote the later " + after();
    case Dependency::kProcess:
      return name(edge.to) + " is of the same process and began later";
    case Dependency::kRealTime:
      return name(edge.to) + " began after " + name(edge.from) + " had ended";
  }
  return {};
}

}  // namespace

std::string describe_key(Key key) {
  return "k" + std::to_string(key);
}

std::string describe_version(const HistoryIndex& index, VersionIndex version) {
  const Version& v = index.version(version);
  const std::string key = describe_key(index.keys()[v.key].name);
  return v.initial() ? "the initial state of " + key : std::to_string(v.value) + " of " + key;
}

std::string describe_transaction(const HistoryIndex& index, TxnIndex txn) {
  const Transaction& t = index.history().transactions[txn];
  constexpr const char* kOutcomes[] = {"committed", "aborted", "of unknown outcome"};
  std::string text = name(txn) + " (process " + std::to_string(t.process) + ", " +
                     kOutcomes[static_cast<int>(t.outcome)] + ", time " + std::to_string(t.begin) +
                     (t.end == kNever ? " on" : " to " + std::to_string(t.end)) + "):";
  const char* separator = " ";
  for (const Op& op : t.ops) {
    text += separator + describe_op(op);
    separator = ", ";
  }
  return text;
}

std::string describe(const HistoryIndex& index, const std::string& what, std::span<const TxnIndex> transactions) {
  std::string text = what + "\n";
  for (const TxnIndex txn : transactions) text += "  " + describe_transaction(index, txn) + "\n";
  return text;
}

std::string describe_cycle(const HistoryIndex& index, std::span<const Edge> cycle) {
  std::string text = "a cycle of " + std::to_string(cycle.size()) + " transactions\n";
  for (const Edge& edge : cycle) text += "  " + describe_transaction(index, edge.from) + "\n";
  constexpr const char* kKinds[] = {"ww", "wr", "rw", "process", "real time"};
  for (const Edge& edge : cycle) {
    text += "  " + name(edge.from) + " before " + name(edge.to) + " (" + kKinds[static_cast<int>(edge.kind)] +
            (edge.by_time ? ", by time" : "") + "): " + describe_edge(index, edge) + "\n";
  }
  return text;
}

}  // namespace kelda::history
