// How long a fiber that always has work runs before it gives way to the others of its core.
//
// Contract: used by one fiber. A turn is short beside what a client notices, so that one that waits for its answer is held
// up by a fraction of that, and long beside what a switch costs.
#pragma once

#include "runtime/core.h"

namespace kelda::runtime {

class Turn {
 public:
  void begin() {
    began_ns_ = now_ns();
    steps_ = 0;
  }
  // Call between pieces of work, before what must end first (a lock that others wait for): is the turn over?
  // `large`: the piece may have taken long by itself.
  bool due(bool large = false) { return (++steps_ % kStepsAClock == 0 || large) && over(); }
  // Lets others run and begins a new turn.
  void end() {
    Core::current().give_way();
    begin();
  }
  // Call between pieces of work. True when the turn was over: others have run, and a new one has begun.
  bool step(bool large = false) {
    if (!due(large)) return false;
    end();
    return true;
  }

 private:
  static constexpr TimeNs kLengthNs = 50'000;
  static constexpr int kMostSteps = 64;   // where no time passes while a fiber runs: in simulation
  static constexpr int kStepsAClock = 4;  // small pieces between looks at the clock, which costs as much as a tenth of a PING

  bool over() const { return steps_ >= kMostSteps || now_ns() - began_ns_ >= kLengthNs; }

  TimeNs began_ns_ = 0;
  int steps_ = 0;
};

}  // namespace kelda::runtime
