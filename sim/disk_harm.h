// What the adversary does to the disk: plans for the simulated device, and the memory of what is wrong with it.
#pragma once

#include "blockdev/memory_sim.h"
#include "common/prng.h"
#include "sim/world.h"

namespace kelda::sim {

class DiskHarm {
 public:
  explicit DiskHarm(World& world) : world_(world), dice_(world.config.seed ^ 0x6469736b) {}

  // Formatted, empty. Its log has the size that was configured.
  Result<std::unique_ptr<blockdev::MemoryDevice>> make_disk();
  // Starts it; false if the kind is not one that concerns the disk.
  bool act(FaultKind kind, blockdev::MemoryDevice& disk);
  // What passes by itself is over: slowness, what is stuck, errors but permanent ones.
  void calm(blockdev::MemoryDevice& disk);
  // A new machine or disk: nothing is wrong any more, but what is lost stays lost.
  void heal(blockdev::MemoryDevice& disk);
  // As calm(), and the power fails somewhere in the next operations.
  void calm_and_cut_soon(blockdev::MemoryDevice& disk, std::uint64_t within_operations);

  blockdev::Survival survival() const { return survival_; }  // of the power cut that was planned last
  blockdev::Survival any_survival();
  bool full() const { return capacity_bytes_ != kUnlimited; }

 private:
  static constexpr std::uint64_t kUnlimited = ~std::uint64_t{0};
  blockdev::FaultPlan plan(std::vector<blockdev::FaultRule> rules = {});
  void set(blockdev::MemoryDevice& disk, blockdev::FaultRule rule) { disk.set_plan(plan({rule})); }

  World& world_;
  Prng dice_;
  std::uint64_t pages_offset_ = 0;
  std::uint64_t capacity_bytes_ = kUnlimited;
  std::vector<blockdev::FaultRule> permanent_;
  blockdev::Survival survival_ = blockdev::Survival::kNone;
};

}  // namespace kelda::sim
