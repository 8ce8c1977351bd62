// Crash at every I/O: a script works on a database, the power goes at each single operation of the device in turn, and
// every disk that this cut may leave is opened and looked at.
//
// A cut decides about the writes that no flush has covered and those in flight. Six or fewer: each subset of them, and
// each one torn at some 512-byte boundaries with the others kept or lost. More: a sample. Two outcomes that leave the same
// bytes, after the same was told to the world, are one state.
//
// What must hold of a state: recovery succeeds (also when it is cut itself); the content is that of all commits that were
// acknowledged, or of these and the next ones that were under way, in order and whole; nothing else is there; check_disk
// finds nothing; a second recovery leads to the same; and the database works.
#pragma once

#include <functional>

#include "crash_session.h"

namespace kelda::engine {

struct Script {
  const char* name;
  // Not cut. Leaves the disk as `prepare` found it after a clean shutdown or, if not `clean`, a power cut.
  std::function<Result<>(Session&)> prepare;
  std::function<Result<>(Session&)> body;
  // Fewer than these: something is not covered any more that was.
  std::uint64_t least_operations, least_states;
  bool clean = true;
  // The body opens the database itself (else it is open when the cuts begin).
  bool opens = false;
  bool has_fua = true;
  std::uint64_t size_bytes = 20_MiB;
};

struct Coverage {
  std::uint64_t operations = 0;
  std::uint64_t outcomes = 0;  // ways to choose what survives a cut
  std::uint64_t states = 0;    // that differ, and were checked
};

struct Depth {
  std::uint64_t share = 1;    // one outcome in so many is looked at, the same ones in every run
  bool every_sector = false;  // writes tear at each 512 bytes, and recovery is cut on the way from every state
};

// Cuts at every operation. Failures are reported to GoogleTest.
Coverage crash_at_every_operation(const Script& script, const Depth& depth);
// The same start, but recovery is cut at random operations, again and again, before it may end.
Coverage cut_recovery_again_and_again(const Script& script, std::uint64_t rounds);

}  // namespace kelda::engine
