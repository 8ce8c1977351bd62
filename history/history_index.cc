#include "history/history_index.h"

#include <algorithm>
#include <string>

namespace kelda::history {

namespace {

Error invalid(std::size_t txn, std::size_t op, const std::string& why) {
  return Error(Code::kInvalidArgument,
               "transaction " + std::to_string(txn) + ", operation " + std::to_string(op) + ": " + why);
}

}  // namespace

Result<HistoryIndex> HistoryIndex::build(const History& history) {
  HistoryIndex index;
  index.history_ = &history;
  TRY(index.number_versions());
  index.count_committed();
  return index;
}

Result<> HistoryIndex::number_versions() {
  const auto& transactions = history_->transactions;
  if (transactions.size() >= kNone) return Error(Code::kTooLarge, "too many transactions");
  for (std::size_t txn = 0; txn < transactions.size(); ++txn) {
    const auto& ops = transactions[txn].ops;
    if (transactions[txn].end < transactions[txn].begin) return invalid(txn, 0, "it ends before it begins");
    for (std::size_t i = 0; i < ops.size(); ++i) {
      const Op& op = ops[i];
      const auto [at, is_new] = key_indices_.try_emplace(op.key, static_cast<KeyIndex>(keys_.size()));
      if (is_new) {
        keys_.push_back({op.key, op.of_list(), static_cast<VersionIndex>(versions_.size())});
        versions_.push_back({at->second});
      }
      KeyInfo& key = keys_[at->second];
      if (key.is_list != op.of_list()) return invalid(txn, i, "the key is a list and a register");
      if (op.kind != OpKind::kReadList && op.values.size() > 1) return invalid(txn, i, "more than one value");
      if (!op.writes()) continue;
      if (op.values.empty()) return invalid(txn, i, "writes no value");
      // The writer's previous version of the key, if any, is the last one that was numbered for it.
      if (!key.written.empty() && versions_[key.written.back()].writer == txn) {
        versions_[key.written.back()].last_of_writer = false;
      }
      key.written.push_back(static_cast<VersionIndex>(versions_.size()));
      versions_.push_back({at->second, op.values[0], static_cast<TxnIndex>(txn), static_cast<std::uint32_t>(i)});
    }
  }
  const auto value_of = [&](VersionIndex v) { return versions_[v].value; };
  for (KeyInfo& key : keys_) {
    std::ranges::sort(key.written, {}, value_of);
    const auto twice = std::ranges::adjacent_find(key.written, {}, value_of);
    if (twice == key.written.end()) continue;
    const Version& again = versions_[*std::next(twice)];
    return invalid(again.writer, again.op, "the value was written to the key before");
  }
  return {};
}

VersionIndex HistoryIndex::find(KeyIndex key, Value value) const {
  const auto& written = keys_[key].written;
  const auto at = std::ranges::lower_bound(written, value, {}, [&](VersionIndex v) { return versions_[v].value; });
  return at != written.end() && versions_[*at].value == value ? *at : kNone;
}

void HistoryIndex::count_committed() {
  const auto& transactions = history_->transactions;
  counts_.assign(transactions.size(), false);
  std::vector<TxnIndex> to_visit;
  for (TxnIndex txn = 0; txn < transactions.size(); ++txn) {
    if (transactions[txn].outcome != Outcome::kOk) continue;
    counts_[txn] = true;
    to_visit.push_back(txn);
  }
  const auto seen = [&](KeyIndex key, Value value) {
    const VersionIndex v = find(key, value);
    if (v == kNone) return;
    const TxnIndex writer = versions_[v].writer;
    if (transactions[writer].outcome != Outcome::kUnknown || counts_[writer]) return;
    counts_[writer] = true;
    ++unknown_counted_;
    to_visit.push_back(writer);
  };
  for (const auto& [name, values] : history_->version_orders) {
    const auto key = key_indices_.find(name);
    if (key == key_indices_.end()) continue;
    for (const Value value : values) seen(key->second, value);
  }
  std::vector<const std::vector<Value>*> longest(keys_.size(), nullptr);  // by key: a list all of whose values are done
  while (!to_visit.empty()) {
    const TxnIndex txn = to_visit.back();
    to_visit.pop_back();
    for (const Op& op : transactions[txn].ops) {
      if (op.writes()) continue;
      const KeyIndex key = key_of(op);
      if (longest[key] != nullptr && is_prefix(op.values, *longest[key])) continue;
      for (const Value value : op.values) seen(key, value);
      if (longest[key] == nullptr || op.values.size() > longest[key]->size()) longest[key] = &op.values;
    }
  }
}

}  // namespace kelda::history
