// The orders that do not come from data: in each process, and in time.
#include "history/graph.h"

namespace kelda::history {

namespace {

struct Span {
  Time begin, end;
  TxnIndex txn;
};

std::vector<Span> spans_of(const HistoryIndex& index) {
  std::vector<Span> spans;
  const auto& transactions = index.history().transactions;
  for (TxnIndex txn = 0; txn < transactions.size(); ++txn) {
    if (index.counts(txn)) spans.push_back({transactions[txn].begin, transactions[txn].end, txn});
  }
  return spans;
}

}  // namespace

void add_process_order(const HistoryIndex& index, std::vector<Edge>& edges) {
  std::vector<Span> spans = spans_of(index);
  const auto process = [&](const Span& span) { return index.history().transactions[span.txn].process; };
  std::ranges::sort(spans, {}, [&](const Span& span) { return std::pair(process(span), span.begin); });
  for (std::size_t i = 1; i < spans.size(); ++i) {
    if (process(spans[i - 1]) != process(spans[i])) continue;
    edges.push_back({spans[i - 1].txn, spans[i].txn, Dependency::kProcess});
  }
}

void add_real_time_order(const HistoryIndex& index, std::vector<Edge>& edges) {
  for_each_in_time(spans_of(index), [&](const Span& before, const Span& after) {
    edges.push_back({before.txn, after.txn, Dependency::kRealTime});
  });
}

}  // namespace kelda::history
