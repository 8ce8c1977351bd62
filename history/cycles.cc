#include "history/cycles.h"

#include <optional>

#include "history/explain.h"

namespace kelda::history {

namespace {

// How many edges the search for single anti-dependencies looks at before the rest is named less exactly (as nonadjacent
// ones, which refute the same levels), and how many starts are tried for a short counterexample.
constexpr std::uint64_t kSingleBudget = 20'000'000, kNoBudget = ~std::uint64_t{0};
constexpr std::size_t kStarts = 8, kShortEnough = 3;

bool used_in(const Edge& edge, Order order) {
  if (edge.by_time || edge.kind == Dependency::kRealTime) return order == Order::kRealTime;
  return edge.kind != Dependency::kProcess || order != Order::kData;
}

// Walks over the edges that `allowed` admits.
template <class Allowed>
struct PlainWalk {
  std::uint32_t node_count;
  Allowed allowed;

  std::uint32_t states() const { return node_count; }
  TxnIndex node(std::uint32_t state) const { return state; }
  std::uint32_t step(std::uint32_t, const Edge& edge) const { return allowed(edge) ? edge.to : kNone; }
};
template <class Allowed>
PlainWalk(std::uint32_t, Allowed) -> PlainWalk<Allowed>;

// Walks without two anti-dependencies in a row. State: node * 2, plus 1 after an anti-dependency.
template <class Allowed>
struct NonadjacentWalk {
  std::uint32_t node_count;
  Allowed allowed;

  std::uint32_t states() const { return node_count * 2; }
  TxnIndex node(std::uint32_t state) const { return state / 2; }
  std::uint32_t step(std::uint32_t state, const Edge& edge) const {
    if (!allowed(edge)) return kNone;
    if (edge.kind != Dependency::kRw) return edge.to * 2;
    return state % 2 == 0 ? edge.to * 2 + 1 : kNone;
  }
};
template <class Allowed>
NonadjacentWalk(std::uint32_t, Allowed) -> NonadjacentWalk<Allowed>;

class CycleCheck {
 public:
  CycleCheck(const HistoryIndex& index, const Graph& graph, Findings& findings, Order order)
      : index_(index), graph_(graph), findings_(findings), order_(order) {}

  // True if there are cycles.
  bool run() {
    const auto in_order = [&](const Edge& e) { return used_in(e, order_); };
    knots_ = components(graph_, PlainWalk(graph_.node_count(), in_order));
    knot_count_ = 0;
    for (const std::uint32_t knot : knots_) {
      if (knot != kNone) knot_count_ = std::max(knot_count_, knot + 1);
    }
    if (knot_count_ == 0) return false;
    explained_.assign(knot_count_, false);
    plain_.emplace(graph_, graph_.node_count(), kNoBudget);
    without_reads(Anomaly::kG0, Dependency::kWw,
                  [](const Edge& e) { return e.kind == Dependency::kWr || e.kind == Dependency::kRw; });
    without_reads(Anomaly::kG1c, Dependency::kWr, [](const Edge& e) { return e.kind == Dependency::kRw; });
    single();
    nonadjacent();
    others();
    return true;
  }

 private:
  bool in_knot(const Edge& edge) const {
    return used_in(edge, order_) && knots_[edge.from] != kNone && knots_[edge.from] == knots_[edge.to];
  }

  void report(Anomaly anomaly, const std::vector<Edge>& cycle) {
    explained_[knots_[cycle.front().from]] = true;
    std::vector<TxnIndex> transactions;
    for (const Edge& edge : cycle) transactions.push_back(edge.from);
    findings_.add(anomaly, order_, transactions, [&] { return describe_cycle(index_, cycle); });
  }

  // By component of `component`: the shortest found of the cycles that begin with an edge for which `first` holds,
  // where `close` gives the way back from its end to its start.
  template <class First, class Close>
  void report_shortest(Anomaly anomaly, const std::vector<std::uint32_t>& component, First first, Close close) {
    struct Best {
      std::size_t tried = 0;
      std::vector<Edge> cycle;
    };
    std::unordered_map<std::uint32_t, Best> best;
    for (const Edge& edge : graph_.edges()) {
      if (component[edge.from] == kNone || component[edge.from] != component[edge.to] || !in_knot(edge) || !first(edge))
        continue;
      // A cycle that needs an order is as bad as any other: one is enough.
      if (order_ != Order::kData && explained_[knots_[edge.from]]) continue;
      Best& found = best[component[edge.from]];
      if (found.tried >= kStarts || (!found.cycle.empty() && found.cycle.size() <= kShortEnough)) continue;
      std::vector<Edge> back = close(edge);
      if (back.empty()) continue;
      ++found.tried;
      if (!found.cycle.empty() && back.size() + 1 >= found.cycle.size()) continue;
      found.cycle = {edge};
      found.cycle.insert(found.cycle.end(), back.begin(), back.end());
    }
    for (const auto& [number, found] : best) {
      if (!found.cycle.empty()) report(anomaly, found.cycle);
    }
  }

  // Cycles without the edges that `excluded` names, and with one of the kind.
  template <class Excluded>
  void without_reads(Anomaly anomaly, Dependency kind, Excluded excluded) {
    const PlainWalk walk(graph_.node_count(), [&](const Edge& e) { return in_knot(e) && !excluded(e); });
    const auto component = components(graph_, walk);
    report_shortest(
        anomaly, component, [&](const Edge& e) { return e.kind == kind; },
        [&](const Edge& e) { return plain_->find(walk, e.to, e.from); });
  }

  void single() {
    const PlainWalk walk(graph_.node_count(), [&](const Edge& e) { return in_knot(e) && e.kind != Dependency::kRw; });
    PathFinder finder(graph_, graph_.node_count(), kSingleBudget);
    report_shortest(
        Anomaly::kGSingle, knots_, [](const Edge& e) { return e.kind == Dependency::kRw; },
        [&](const Edge& e) { return finder.find(walk, e.to, e.from); });
  }

  // Exact and linear, unlike the search for a single anti-dependency: a knot of the walks that never take two in a row.
  void nonadjacent() {
    const NonadjacentWalk walk(graph_.node_count(), [&](const Edge& e) { return in_knot(e); });
    const auto component = components(graph_, walk);
    PathFinder finder(graph_, walk.states(), kNoBudget);
    for (const Edge& edge : graph_.edges()) {
      if (!in_knot(edge) || edge.kind != Dependency::kRw || explained_[knots_[edge.from]]) continue;
      const std::uint32_t after = edge.to * 2 + 1, before = edge.from * 2;
      if (component[after] == kNone || component[after] != component[before]) continue;
      std::vector<Edge> cycle = finder.find(walk, after, before);
      cycle.insert(cycle.begin(), edge);
      report(Anomaly::kGNonadjacent, cycle);
    }
  }

  void others() {
    const PlainWalk walk(graph_.node_count(), [&](const Edge& e) { return in_knot(e) && !explained_[knots_[e.from]]; });
    report_shortest(
        Anomaly::kG2, knots_, [&](const Edge& e) { return e.kind == Dependency::kRw && !explained_[knots_[e.from]]; },
        [&](const Edge& e) { return plain_->find(walk, e.to, e.from); });
  }

  const HistoryIndex& index_;
  const Graph& graph_;
  Findings& findings_;
  const Order order_;
  std::vector<std::uint32_t> knots_;  // components of all edges that count
  std::uint32_t knot_count_ = 0;
  std::vector<bool> explained_;  // by knot: some cycle in it was reported
  std::optional<PathFinder> plain_;
};

}  // namespace

void check_cycles(const HistoryIndex& index, const Graph& graph, Findings& findings) {
  for (const Order order : {Order::kData, Order::kProcess, Order::kRealTime}) {
    if (CycleCheck(index, graph, findings, order).run()) return;
  }
}

}  // namespace kelda::history
