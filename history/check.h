// The isolation checker: which anomalies a recorded history shows, and which isolation levels it still satisfies.
//
// Contract
//  - Sound: a reported anomaly is in every execution that could have produced the history (or a worse one is). Not
//    complete: what no read ever saw cannot be judged, and the order of a register's versions is known only where it is
//    given, or reads and time tell it.
//  - Time and memory grow about linearly with the history (times the number of transactions that run at once, for the
//    order in time).
//  - At most CheckOptions::findings_per_kind findings of one kind are explained; `counts` has them all, for cycles the
//    number of knots (strongly connected components) that hold one.
//  - kInvalidArgument: the history breaks its own contract (history.h); the message names the transaction.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "common/result.h"
#include "history/anomaly.h"
#include "history/history.h"

namespace kelda::history {

struct CheckOptions {
  bool process_order = true;    // a process's transactions took place in its order
  bool real_time_order = true;  // whoever ended before another began took place before it
  // A transaction that read a register and then wrote it replaced what it read, or something newer.
  bool writes_follow_reads = true;
  std::size_t findings_per_kind = 8;
};

struct Finding {
  Anomaly anomaly;
  Order order = Order::kData;
  std::vector<std::size_t> transactions;  // indices into the history; of a cycle, in its order
  std::string text;                       // the counterexample, for people: several lines
};

struct Report {
  std::vector<Finding> findings;
  std::array<std::size_t, static_cast<std::size_t>(Anomaly::kCount)> counts{};
  std::array<bool, static_cast<std::size_t>(Level::kCount)> satisfied{};
  std::size_t committed = 0, unknown_counted = 0, edges = 0;

  bool satisfies(Level level) const { return satisfied[static_cast<std::size_t>(level)]; }
  bool found(Anomaly anomaly) const { return counts[static_cast<std::size_t>(anomaly)] != 0; }
  bool found(Anomaly anomaly, Order order) const;
  // A summary line, then every finding.
  std::string to_string() const;
};

Result<Report> check(const History& history, const CheckOptions& options = {});

}  // namespace kelda::history
