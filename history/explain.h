// Findings in words. Internal to history/.
#pragma once

#include <span>
#include <string>

#include "history/graph.h"
#include "history/history_index.h"

namespace kelda::history {

// "k3", "version 7 of k3".
std::string describe_key(Key key);
std::string describe_version(const HistoryIndex& index, VersionIndex version);
// "T7 (process 2, committed): read k1 [1 2], append 3 to k1"
std::string describe_transaction(const HistoryIndex& index, TxnIndex txn);
// A heading, the transactions concerned, each on a line.
std::string describe(const HistoryIndex& index, const std::string& what, std::span<const TxnIndex> transactions);
// The transactions of a cycle, and why each comes before the next.
std::string describe_cycle(const HistoryIndex& index, std::span<const Edge> cycle);

}  // namespace kelda::history
