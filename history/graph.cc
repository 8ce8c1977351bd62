#include "history/graph.h"

#include <tuple>

namespace kelda::history {

Graph::Graph(std::uint32_t node_count, std::vector<Edge> edges) : edges_(std::move(edges)), starts_(node_count + 1, 0) {
  const auto key = [](const Edge& e) { return std::tuple(e.from, e.to, e.kind, e.by_time); };
  std::ranges::sort(edges_, {}, key);
  const auto repeated = std::ranges::unique(edges_, {}, key);
  edges_.erase(repeated.begin(), repeated.end());
  for (const Edge& edge : edges_) ++starts_[edge.from + 1];
  for (std::uint32_t node = 0; node < node_count; ++node) starts_[node + 1] += starts_[node];
}

Graph build_graph(const HistoryIndex& index, const Facts& facts, std::vector<Edge> edges) {
  const auto& versions = index.versions();
  std::vector<VersionRead> reads = facts.reads;
  std::ranges::sort(reads, {}, &VersionRead::version);
  const auto add = [&](TxnIndex from, TxnIndex to, Dependency kind, bool by_time, VersionIndex before,
                       VersionIndex after) {
    if (from != to && from != kNone && to != kNone) edges.push_back({from, to, kind, by_time, before, after});
  };
  for (const VersionRead& read : reads) {
    add(versions[read.version].writer, read.reader, Dependency::kWr, false, read.version, read.version);
  }
  for (const Succession& s : facts.successions) {
    // What time tells of two writers their order in time says already, and better.
    if (!s.by_time) add(versions[s.before].writer, versions[s.after].writer, Dependency::kWw, false, s.before, s.after);
    for (const VersionRead& read : std::ranges::equal_range(reads, s.before, {}, &VersionRead::version)) {
      add(read.reader, versions[s.after].writer, Dependency::kRw, s.by_time, s.before, s.after);
    }
  }
  return Graph(static_cast<std::uint32_t>(index.history().transactions.size()), std::move(edges));
}

}  // namespace kelda::history
