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

// `give_up` is called when the simulated program hangs for ever, which the report then says, and does not return: what
// waits for the program would simulate that for ever. Without it a limit of steps ends the run, minutes later.
using GiveUp = void (*)();
void run_simulation(const Config& config, Report& report, GiveUp give_up = nullptr);

}  // namespace kelda::sim
