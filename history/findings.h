// Collects findings, explains at most so many of a kind, and counts all. Internal to history/.
#pragma once

#include <utility>

#include "history/check.h"
#include "history/history_index.h"

namespace kelda::history {

class Findings {
 public:
  explicit Findings(std::size_t limit_per_kind) : limit_(limit_per_kind) {}

  // `explain` gives the text; it runs only for those that are kept.
  template <class Explain>
  void add(Anomaly anomaly, Order order, std::vector<TxnIndex> transactions, Explain explain) {
    std::size_t& count = counts[static_cast<std::size_t>(anomaly)];
    if (count++ < limit_) list.push_back({anomaly, order, {transactions.begin(), transactions.end()}, explain()});
  }

  std::vector<Finding> list;
  decltype(Report::counts) counts{};

 private:
  std::size_t limit_;
};

// What the accesses to single keys tell: anomalies, and the facts for the graph.
void check_lists(const HistoryIndex& index, Findings& findings, Facts& facts);
void check_registers(const HistoryIndex& index, const CheckOptions& options, Findings& findings, Facts& facts);

}  // namespace kelda::history
