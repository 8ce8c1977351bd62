// Lists and registers that many clients share in transactions, and the history of what they did there: it must be
// strictly serializable.
//
// Contract: any core may record; verdict() when nobody does any more. Of a Recorder the values also count the writes:
// after each kWritesARound of them come new keys, so that lists stay short.
#pragma once

#include <string>
#include <vector>

#include "sim/recorder.h"

namespace kelda::sim {

class Isolation {
 public:
  static constexpr history::Key kKeysARound = 8;
  static constexpr history::Value kWritesARound = 160;

  static bool is_list(history::Key key) { return key % 2 == 0; }
  static std::string name(history::Key key);
  static std::vector<history::Key> keys_of(std::uint64_t round);

  std::uint64_t round() const { return recorder.last_value() / kWritesARound; }
  // Empty, or the anomalies. `commands_may_fail`: within a MULTI, alone (World::commands_may_fail). Of one whose answer was
  // lost then only those writes count that somebody saw.
  std::string verdict(bool commands_may_fail = false) const;

  Recorder recorder;
};

}  // namespace kelda::sim
