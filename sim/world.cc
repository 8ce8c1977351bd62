#include "sim/world.h"

namespace kelda::sim {

namespace {

bool commands_may_fail_in(const Config& config) {
  const FaultSet& faults = config.faults;
  const bool values_fit =
      config.clients * config.registers_per_client * std::uint64_t{config.value_max_bytes} < config.disk_bytes / 8;
  return faults.has(FaultKind::kReadError) || faults.has(FaultKind::kPermanentError) || faults.has(FaultKind::kFull) ||
         faults.has(FaultKind::kMemory) || faults.destroys_data() || !values_fit;
}

}  // namespace

World::World(const Config& configuration, Report& report)
    : config(configuration),
      trace(report),
      commands_may_fail(commands_may_fail_in(configuration)),
      bank(configuration.accounts, commands_may_fail) {
  for (std::uint32_t owner = 0; owner < config.clients; ++owner) {
    Prng dice(config.seed * 131 + owner);
    auto& own = registers.emplace_back();
    for (std::uint32_t i = 0; i < config.registers_per_client; ++i) {
      own.emplace_back(owner, i, dice.one_in(3) ? static_cast<std::uint32_t>(dice.between(2, 4)) : 1);
    }
  }
  for (std::uint32_t i = 0; i < config.counters; ++i) counters.emplace_back(i);
  for (std::uint32_t i = 0; i < config.lists; ++i) lists.emplace_back(i);
}

}  // namespace kelda::sim
