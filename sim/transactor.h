// Transactions of one client on the shared keys (sim/isolation.h), through the Redis protocol, each recorded as it
// ended.
//
// A transaction is one command, or MULTI to EXEC. What was read under WATCH also belongs to the transaction of the EXEC
// that did not refuse: that is what WATCH promises. A reply that makes no sense is recorded as the read of a value that
// nobody wrote, which the judge shows.
#pragma once

#include <memory>
#include <vector>

#include "sim/isolation.h"
#include "sim/operation.h"

namespace kelda::sim {

// A key and its value, as it was read under WATCH.
struct WatchedValue {
  history::Key key;
  Reply value;
};

class Transactor {
 public:
  Transactor(Isolation& isolation, std::uint64_t seed)
      : isolation_(isolation), dice_(seed), process_(isolation.recorder.new_process()) {}

  // A new connection watches nothing.
  void connected() { watched_.clear(); }
  // The next round trip; the one before has ended.
  std::unique_ptr<Operation> next();
  // A read of all keys of one round at one moment.
  std::unique_ptr<Operation> read_round(std::uint64_t round);

 private:
  friend class RoundTrip;
  Isolation& isolation_;
  Prng dice_;
  std::uint32_t process_;              // a new one after each unknown outcome
  std::vector<WatchedValue> watched_;  // EXEC is next
};

}  // namespace kelda::sim
