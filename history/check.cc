#include "history/check.h"

#include "history/cycles.h"
#include "history/explain.h"
#include "history/findings.h"

namespace kelda::history {

namespace {

// Of several that read one version of a key and replaced it, all but one lost it.
void check_lost_updates(const HistoryIndex& index, Facts& facts, Findings& findings) {
  auto& replaced = facts.replaced;
  std::ranges::sort(replaced, {}, [](const VersionRead& r) { return std::pair(r.version, r.reader); });
  for (auto first = replaced.begin(); first != replaced.end();) {
    const auto end =
        std::find_if(first, replaced.end(), [&](const VersionRead& r) { return r.version != first->version; });
    if (end - first > 1) {
      std::vector<TxnIndex> transactions;
      for (auto it = first; it != end && transactions.size() < 8; ++it) transactions.push_back(it->reader);
      findings.add(Anomaly::kLostUpdate, Order::kData, transactions, [&] {
        return describe(index,
                        "several transactions read " + describe_version(index, first->version) + " and replaced it",
                        transactions);
      });
    }
    first = end;
  }
}

}  // namespace

Result<Report> check(const History& history, const CheckOptions& options) {
  const HistoryIndex index = TRY(HistoryIndex::build(history));
  Findings findings(std::max<std::size_t>(options.findings_per_kind, 1));
  Facts facts;
  check_lists(index, findings, facts);
  check_registers(index, options, findings, facts);
  check_lost_updates(index, facts, findings);
  std::vector<Edge> orders;
  if (options.process_order) add_process_order(index, orders);
  if (options.real_time_order) add_real_time_order(index, orders);
  const Graph graph = build_graph(index, facts, std::move(orders));
  check_cycles(index, graph, findings);

  Report report;
  report.findings = std::move(findings.list);
  report.counts = findings.counts;
  report.edges = graph.edges().size();
  report.unknown_counted = index.unknown_counted();
  for (TxnIndex txn = 0; txn < history.transactions.size(); ++txn) report.committed += index.counts(txn);
  for (std::size_t level = 0; level < report.satisfied.size(); ++level) {
    report.satisfied[level] = std::ranges::none_of(report.findings, [&](const Finding& finding) {
      return level_excludes(static_cast<Level>(level), finding.anomaly, finding.order);
    });
  }
  return report;
}

bool Report::found(Anomaly anomaly, Order order) const {
  return std::ranges::any_of(findings, [&](const Finding& f) { return f.anomaly == anomaly && f.order == order; });
}

std::string Report::to_string() const {
  std::string text = std::to_string(committed) + " transactions committed (" + std::to_string(unknown_counted) +
                     " of them of unknown outcome), " + std::to_string(edges) + " edges; satisfies";
  const char* separator = ": ";
  for (std::size_t level = 0; level < satisfied.size(); ++level) {
    if (!satisfied[level]) continue;
    text += separator + std::string(level_name(static_cast<Level>(level)));
    separator = ", ";
  }
  text += *separator == ':' ? " no level\n" : "\n";
  for (const Finding& finding : findings) text += anomaly_name(finding.anomaly, finding.order) + ": " + finding.text;
  return text;
}

}  // namespace kelda::history
