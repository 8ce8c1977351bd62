// A client: a fiber that connects, sends operations, and tells the models what was acknowledged.
//
// When its connection ends with requests unanswered it waits, before it comes back, until the server has let go of the
// old connection. From then on a request of unknown outcome has either happened or never will.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "sim/transactor.h"

namespace kelda::sim {

class SimClient {
 public:
  // Those after the first Config::clients run transactions on the shared keys.
  SimClient(World& world, std::uint32_t number);

  // Until World::over.
  void run();

  // The moment of its last success, for the check of progress.
  runtime::TimeNs last_success_ns() const { return last_success_ns_; }
  std::uint32_t number() const { return number_; }
  // What it is doing, for people.
  std::string doing() const { return doing_; }

  // The adversary's hands on the cable; nothing happens while there is none.
  void cut();
  void vanish();

 private:
  bool connect();
  void disconnect();
  void work();
  bool transact();
  bool operate();
  bool carry_out(std::vector<std::unique_ptr<Operation>> operations);
  void ended(const Operation& operation, Fate fate, const Reply* last);
  void judge_error(const Operation& operation, const Reply& error);

  World& world_;
  const std::uint32_t number_;
  Prng dice_;
  std::optional<Transactor> transactor_;
  std::unique_ptr<net::PipeConnection> connection_;
  std::unique_ptr<RespClient> resp_;
  std::uint64_t incarnation_ = 0;  // of the server that we are connected to
  std::int64_t id_ = 0;            // ours there; 0: not known
  runtime::TimeNs last_success_ns_ = 0;
  std::string doing_ = "starting";
};

}  // namespace kelda::sim
