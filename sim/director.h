// Who starts servers, harms them, ends them and judges what is left: the main fiber of a simulation.
#pragma once

#include <memory>
#include <vector>

#include "sim/client.h"
#include "sim/disk_harm.h"
#include "sim/instance.h"
#include "sim/simulation.h"

namespace kelda::sim {

class Director {
 public:
  // `give_up`: simulation.h; may be null.
  Director(World& world, runtime::Runtime& runtime, GiveUp give_up)
      : world_(world), runtime_(runtime), give_up_(give_up), harm_(world), dice_(world.config.seed ^ 0x64697265) {}
  void run();

 private:
  enum class Ending : std::uint8_t { kNone, kPowerCut, kKill, kRestart, kFailed, kFinished, kAbandoned };

  void run_history();
  void start_clients();
  bool start();  // false: this disk will serve no more
  bool audit_or_retry();
  void serve_a_twin(const blockdev::MemoryDevice& disk);
  void watch_scrub();
  Ending serve();  // until something ends it
  void end(Ending how);
  void reboot(blockdev::Survival survival);
  void act();  // one deed of the adversary
  void act_around(FaultKind kind);
  bool all_progressed() const;
  std::string laggards() const;
  void leave();  // clients go, and the disk is judged for the last time
  bool quiet() const { return healed_ns_ != 0; }

  World& world_;
  runtime::Runtime& runtime_;
  const GiveUp give_up_;
  DiskHarm harm_;
  Prng dice_;
  std::unique_ptr<blockdev::MemoryDevice> disk_;
  std::unique_ptr<Instance> instance_;
  std::vector<std::unique_ptr<SimClient>> clients_;
  runtime::TimeNs attack_ends_ns_ = 0, healed_ns_ = 0;
  Ending wanted_ = Ending::kNone;
  std::uint64_t starts_ = 0;
};

}  // namespace kelda::sim
