// A whole Kelda under attack, in one process and in virtual time: server, engine and log on simulated seams, clients
// that know what was acknowledged, and an adversary. docs/simulation.md explains it.
//
// Contract: equal configurations have equal histories, on any machine: run it in a process that has run nothing else,
// or after other simulations in turn, never beside one. The report is written as the simulation goes, so that an abort
// leaves what led to it.
#pragma once

#include "sim/config.h"
#include "sim/report.h"

namespace kelda::sim {

void run_simulation(const Config& config, Report& report);

}  // namespace kelda::sim
