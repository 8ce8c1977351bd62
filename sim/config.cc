#include "sim/config.h"

#include <fmt/format.h>

#include <algorithm>

namespace kelda::sim {

namespace {

template <class T, std::size_t n>
T one_of(Prng& dice, const T (&choices)[n]) {
  return choices[dice.below(n)];
}

FaultSet random_faults(Prng& dice) {
  // Some histories with hardly any, some with many: rare combinations come about, and none hides the others.
  const std::uint64_t among = one_of(dice, {2ull, 4ull, 8ull});
  FaultSet chosen;
  for (const FaultKind kind : FaultSet::all().kinds()) {
    if (dice.below(among) == 0) chosen.add(kind);
  }
  // Where data may be gone for good little can be said: most histories are without.
  if (dice.below(4) != 0) {
    for (const FaultKind kind : {FaultKind::kLatent, FaultKind::kBitRot, FaultKind::kMisdirect, FaultKind::kPhantom})
      chosen.remove(kind);
  }
  return chosen;
}

Config random_config(Prng& dice) {
  Config c;
  c.duration_ns = one_of(dice, {2u, 5u, 10u, 20u}) * kSecondNs;
  c.cores = static_cast<std::uint32_t>(dice.between(1, 4));
  c.clients = static_cast<std::uint32_t>(one_of(dice, {1u, 2u, 4u, 8u, 12u}));
  c.engine_memory_bytes = one_of(dice, {7_MiB, 8_MiB, 12_MiB, 32_MiB});
  c.request_memory_bytes = one_of(dice, {4_MiB, 16_MiB});
  c.disk_bytes = one_of(dice, {20_MiB, 24_MiB, 48_MiB, 96_MiB});
  c.log_bytes = one_of(dice, {2_MiB, 3_MiB, 4_MiB, 8_MiB});
  c.has_fua = dice.one_in(2);
  c.reference_bits = dice.one_in(2);
  c.disk_delay_min_ns = one_of(dice, {1u, 20u, 100u}) * kMicrosecondNs;
  c.disk_delay_max_ns = c.disk_delay_min_ns * one_of(dice, {1u, 5u, 50u});
  c.registers_per_client = one_of(dice, {2u, 8u, 32u, 100u});
  c.counters = one_of(dice, {1u, 4u});
  c.lists = one_of(dice, {1u, 4u});
  c.value_max_bytes = one_of(dice, {100u, 2'000u, 20'000u, 150'000u});
  c.pipeline_max = one_of(dice, {1u, 4u, 16u});
  c.think_max_ns = one_of(dice, {2u, 10u, 40u}) * kMillisecondNs;
  c.write_percent = one_of(dice, {10u, 50u, 90u});
  c.expiry_percent = one_of(dice, {0u, 10u, 50u});
  c.faults = random_faults(dice);
  c.fault_every_ns = one_of(dice, {50u, 300u, 1'000u}) * kMillisecondNs;
  c.pipe.short_reads = dice.one_in(4);
  c.pipe.window_bytes = one_of(dice, {4096u, 65536u, 1u << 20});
  c.scrub_bytes_per_s = one_of(dice, {0_MiB, 1_MiB, 16_MiB});
  c.transactors = one_of(dice, {2u, 3u, 4u, 8u});
  return c;
}

}  // namespace

Config make_config(std::uint64_t seed, const Overrides& overrides) {
  Prng dice(seed ^ 0x636f6e666967);
  Config c;
  if (overrides.swarm) c = random_config(dice);
  c.seed = seed;
  if (overrides.seconds) c.duration_ns = static_cast<runtime::TimeNs>(*overrides.seconds * 1e9);
  if (overrides.cores) c.cores = *overrides.cores;
  if (overrides.clients) c.clients = *overrides.clients;
  if (overrides.transactors) c.transactors = *overrides.transactors;
  if (overrides.faults) c.faults = *overrides.faults;
  Prng pipe_dice(seed ^ 0x70697065);
  c.pipe.seed = pipe_dice.next();
  if (c.faults.has(FaultKind::kDelay)) c.pipe.delay_ns = pipe_dice.between(1, 50) * kMillisecondNs;
  if (c.faults.has(FaultKind::kLoss)) c.pipe.loss = 0.02;
  return c;
}

std::string describe(const Config& c) {
  const auto mib = [](std::uint64_t bytes) { return bytes >> 20; };
  return fmt::format(
      "{:.1f} s, {} cores, {} clients x {} registers and {} transactors, values to {} B, pipelines to {}, {}% writes, think to {} ms, "
      "memory {} MiB, "
      "disk {} MiB (log {} MiB, {}, {}-{} us), pipes {} us window {} KiB{}, faults every {} ms: {}",
      static_cast<double>(c.duration_ns) / 1e9, c.cores, c.clients, c.registers_per_client, c.transactors, c.value_max_bytes,
      c.pipeline_max, c.write_percent, c.think_max_ns / kMillisecondNs, mib(c.engine_memory_bytes), mib(c.disk_bytes),
      mib(c.log_bytes), c.has_fua ? "FUA" : "no FUA", c.disk_delay_min_ns / 1000, c.disk_delay_max_ns / 1000,
      c.pipe.delay_ns / 1000, c.pipe.window_bytes / 1024, c.pipe.short_reads ? ", short reads" : "",
      c.fault_every_ns / kMillisecondNs, c.faults.to_string());
}

std::string command_line(std::uint64_t seed, const Overrides& o) {
  std::string text = fmt::format("kelda sim --seed {}", seed);
  if (!o.swarm) text += " --no-swarm";
  if (o.seconds) text += fmt::format(" --seconds-of-virtual-time {}", *o.seconds);
  if (o.cores) text += fmt::format(" --cores {}", *o.cores);
  if (o.clients) text += fmt::format(" --clients {}", *o.clients);
  if (o.transactors) text += fmt::format(" --transactors {}", *o.transactors);
  if (o.faults) text += " --faults " + o.faults->to_string();
  return text;
}

}  // namespace kelda::sim
