// Names the cycles of a dependency graph. Internal to history/.
#pragma once

#include "history/findings.h"
#include "history/graph.h"

namespace kelda::history {

// Reports the anomalies of the cycles that have data dependencies only; if there are none, of those that also need the
// order in a process; if there are none, in time. (A cycle that needs less refutes more levels.)
void check_cycles(const HistoryIndex& index, const Graph& graph, Findings& findings);

}  // namespace kelda::history
