// One running Kelda: the engine on a simulated disk, and the server on a listener of pipes.
//
// Contract: start() and stop() on core 0. The disk outlives the instance; a test cuts its power through the disk
// itself.
#pragma once

#include <memory>

#include "blockdev/memory_sim.h"
#include "bufferpool/page_map_sim.h"
#include "engine/database_impl.h"
#include "net/pipe_sim.h"
#include "server/server.h"
#include "sim/config.h"

namespace kelda::sim {

class Instance {
 public:
  // Opens the database (with recovery) and serves. The error is the engine's.
  static Result<std::unique_ptr<Instance>> start(runtime::Runtime& runtime, blockdev::MemoryDevice& disk,
                                                 const Config& config, std::uint64_t number);
  ~Instance();

  // Ends the server; `clean`: closes the database too, and returns what that says.
  Result<> stop(bool clean);

  Database& database() { return *database_; }
  server::Server& server() { return *server_; }
  net::PipeListener& listener() { return *listener_; }
  bufferpool::SimulatedPageMap& page_map() { return *page_map_; }
  const OpenReport& opened() const { return opened_; }
  // Of what the memory bound promises; empty if it is kept.
  std::string over_memory() const;

 private:
  Instance() = default;

  const Config* config_ = nullptr;
  bufferpool::SimulatedPageMap* page_map_ = nullptr;
  OpenReport opened_;
  std::unique_ptr<engine::DatabaseImpl> database_;
  std::unique_ptr<net::PipeListener> listener_;
  std::unique_ptr<server::Server> server_;
  runtime::Event served_;
  Result<> serve_result_;
  bool stopped_ = false;
};

}  // namespace kelda::sim
