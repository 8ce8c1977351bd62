// One operation of a client: commands, and what follows from their replies for the models.
//
// Contract: begin() at the moment of sending; then exactly one of answered() (with one reply for each command) and
// lost() (the connection ended: nobody knows what happened). An operation that both sides know not to have happened is
// an answer.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "common/prng.h"
#include "sim/world.h"

namespace kelda::sim {

enum class Fate : std::uint8_t {
  kDone,
  kRefused,  // an error: it did not happen
  kUnknown,
};

class Operation {
 public:
  virtual ~Operation() = default;
  // Appends the commands and returns how many replies they get.
  virtual std::size_t begin(std::string& requests) = 0;
  virtual Fate answered(std::span<const Reply> replies) = 0;
  virtual void lost() = 0;
  virtual std::string name() const = 0;
};

// A random one for the client. `busy`: its own registers that other operations of the same pipeline use.
std::unique_ptr<Operation> make_operation(World& world, Prng& dice, std::uint32_t client, std::vector<bool>& busy);

// Increments a counter by WATCH, GET, MULTI, SET, EXEC: two round trips, two operations.
struct WatchedRead {
  World& world;
  Counter& counter;
  std::int64_t seen = 0;
  bool done = false;  // else the disk refused the read, and there is nothing to write
};
std::unique_ptr<Operation> make_watched_read(WatchedRead& shared);
std::unique_ptr<Operation> make_watched_write(WatchedRead& shared);

}  // namespace kelda::sim
