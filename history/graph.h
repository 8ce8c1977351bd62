// The dependency graph of a history's transactions, its strongly connected components and its short cycles.
//
// Edges (Adya's direct serialization graph, and orders): ww: wrote the version that the other's replaced; wr: wrote
// what the other read; rw (anti-dependency): read what the other's version replaced. Versions between two that are
// known to follow each other may be unknown, so a ww or rw edge may stand for such an edge and further ww edges.
// Internal to history/.
#pragma once

#include <deque>
#include <span>
#include <vector>

#include "common/assert.h"
#include "history/history_index.h"

namespace kelda::history {

enum class Dependency : std::uint8_t { kWw, kWr, kRw, kProcess, kRealTime };

struct Edge {
  TxnIndex from, to;
  Dependency kind;
  bool by_time = false;  // as Succession::by_time
  // ww, rw: the version and the one that replaced it. wr: the version that was read, twice.
  VersionIndex before = kNone, after = kNone;
};

class Graph {
 public:
  Graph(std::uint32_t node_count, std::vector<Edge> edges);

  std::uint32_t node_count() const { return static_cast<std::uint32_t>(starts_.size() - 1); }
  std::span<const Edge> edges() const { return edges_; }
  std::span<const Edge> out(TxnIndex node) const {
    return std::span(edges_).subspan(starts_[node], starts_[node + 1] - starts_[node]);
  }

 private:
  std::vector<Edge> edges_;
  std::vector<std::uint32_t> starts_;
};

Graph build_graph(const HistoryIndex& index, const Facts& facts, std::vector<Edge> orders);
// The order in each process, and that in time, reduced to edges that imply all others.
void add_process_order(const HistoryIndex& index, std::vector<Edge>& edges);
void add_real_time_order(const HistoryIndex& index, std::vector<Edge>& edges);

// Walks go over states: the nodes themselves, or nodes together with what the walk remembers. A Walk has
//   std::uint32_t states(), node(state), step(state, edge): the next state, or kNone if the edge may not be taken.

// Tarjan's algorithm, without recursion. By state: the number of its component; kNone if that is the state alone.
template <class Walk>
std::vector<std::uint32_t> components(const Graph& graph, const Walk& walk) {
  const std::uint32_t count = walk.states();
  std::vector<std::uint32_t> component(count, kNone), found_at(count, kNone), lowest(count, 0);
  std::vector<bool> on_stack(count, false);
  std::vector<std::uint32_t> stack;
  struct Visit {
    std::uint32_t state;
    std::size_t next_edge;
  };
  std::vector<Visit> visits;
  std::uint32_t clock = 0, component_count = 0;
  for (std::uint32_t start = 0; start < count; ++start) {
    if (found_at[start] != kNone) continue;
    visits.push_back({start, 0});
    while (!visits.empty()) {
      auto& [state, next_edge] = visits.back();
      if (next_edge == 0 && found_at[state] == kNone) {
        found_at[state] = lowest[state] = clock++;
        stack.push_back(state);
        on_stack[state] = true;
      }
      const auto out = graph.out(walk.node(state));
      std::uint32_t deeper = kNone;
      while (next_edge < out.size() && deeper == kNone) {
        const std::uint32_t to = walk.step(state, out[next_edge++]);
        if (to == kNone) continue;
        if (found_at[to] == kNone) {
          deeper = to;
        } else if (on_stack[to]) {
          lowest[state] = std::min(lowest[state], found_at[to]);
        }
      }
      if (deeper != kNone) {
        visits.push_back({deeper, 0});
        continue;
      }
      const std::uint32_t done = state;
      visits.pop_back();
      if (!visits.empty()) lowest[visits.back().state] = std::min(lowest[visits.back().state], lowest[done]);
      if (lowest[done] != found_at[done]) continue;
      const bool alone = stack.back() == done;
      for (;;) {
        const std::uint32_t member = stack.back();
        stack.pop_back();
        on_stack[member] = false;
        component[member] = alone ? kNone : component_count;
        if (member == done) break;
      }
      if (!alone) ++component_count;
    }
  }
  return component;
}

// Shortest walks, breadth first. Reused for many searches over one graph; `budget` bounds the edges looked at in all.
class PathFinder {
 public:
  PathFinder(const Graph& graph, std::uint32_t state_count, std::uint64_t budget)
      : graph_(graph),
        reached_by_(state_count, nullptr),
        from_(state_count, kNone),
        stamp_(state_count, 0),
        budget_(budget) {}

  // The edges from one state to another; empty if there is no such walk, or the budget is used up.
  template <class Walk>
  std::vector<Edge> find(const Walk& walk, std::uint32_t from, std::uint32_t to) {
    ++search_;
    std::deque<std::uint32_t> queue{from};
    stamp_[from] = search_;
    while (!queue.empty()) {
      const std::uint32_t state = queue.front();
      queue.pop_front();
      for (const Edge& edge : graph_.out(walk.node(state))) {
        if (budget_ == 0) return {};
        --budget_;
        const std::uint32_t next = walk.step(state, edge);
        if (next == kNone || (stamp_[next] == search_ && next != to)) continue;
        stamp_[next] = search_;
        reached_by_[next] = &edge;
        from_[next] = state;
        if (next == to) return path(from, to);
        queue.push_back(next);
      }
    }
    return {};
  }

 private:
  std::vector<Edge> path(std::uint32_t from, std::uint32_t to) const {
    std::vector<Edge> edges;
    std::uint32_t at = to;
    do {
      edges.push_back(*reached_by_[at]);
      at = from_[at];
    } while (at != from);
    return {edges.rbegin(), edges.rend()};
  }

  const Graph& graph_;
  std::vector<const Edge*> reached_by_;
  std::vector<std::uint32_t> from_;
  std::vector<std::uint32_t> stamp_;
  std::uint32_t search_ = 0;
  std::uint64_t budget_;
};

// Reports all pairs of items of which one ended before the other began, except those that follow from others.
// Item: begin, end.
template <class Item, class Emit>
void for_each_in_time(const std::vector<Item>& items, Emit emit) {
  std::vector<std::uint32_t> by_begin(items.size()), by_end(items.size());
  for (std::uint32_t i = 0; i < items.size(); ++i) by_begin[i] = by_end[i] = i;
  std::ranges::sort(by_begin, {}, [&](std::uint32_t i) { return items[i].begin; });
  std::ranges::sort(by_end, {}, [&](std::uint32_t i) { return items[i].end; });
  std::vector<std::uint32_t> latest;  // ended, and before none that ended later began
  std::size_t ended = 0;
  for (const std::uint32_t next : by_begin) {
    for (; items[by_end[ended]].end < items[next].begin; ++ended) {
      const Item& done = items[by_end[ended]];
      std::erase_if(latest, [&](std::uint32_t i) { return items[i].end < done.begin; });
      latest.push_back(by_end[ended]);
    }
    for (const std::uint32_t before : latest) emit(items[before], items[next]);
  }
}

}  // namespace kelda::history
