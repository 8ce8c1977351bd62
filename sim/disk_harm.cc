#include "sim/disk_harm.h"

#include "disk/superblock.h"

namespace kelda::sim {

using blockdev::Fault;
using blockdev::FaultRule;
using blockdev::Op;
using blockdev::Survival;

Result<std::unique_ptr<blockdev::MemoryDevice>> DiskHarm::make_disk() {
  blockdev::MemoryOptions options;
  options.size_bytes = world_.config.disk_bytes;
  options.has_fua = world_.config.has_fua && !world_.config.faults.has(FaultKind::kLyingFlush);
  options.name = "disk";
  auto disk = std::make_unique<blockdev::MemoryDevice>(options);
  const auto superblock = TRY(disk::Superblock::format(*disk, {.log_bytes = world_.config.log_bytes}));
  pages_offset_ = superblock.layout().pages_offset;
  return disk;
}

blockdev::FaultPlan DiskHarm::plan(std::vector<FaultRule> rules) {
  blockdev::FaultPlan plan;
  plan.seed = dice_.next();
  plan.delay_min_ns = world_.config.disk_delay_min_ns;
  plan.delay_max_ns = world_.config.disk_delay_max_ns;
  plan.capacity_bytes = capacity_bytes_;
  plan.rules = std::move(rules);
  plan.rules.insert(plan.rules.end(), permanent_.begin(), permanent_.end());
  if (world_.config.faults.has(FaultKind::kLyingFlush)) {
    plan.rules.push_back({.fault = Fault::kPhantom, .op = Op::kFlush, .count = FaultRule::kAlways});
  }
  if (world_.config.faults.has(FaultKind::kRottenReads)) {
    plan.rules.push_back({.fault = Fault::kBitRot,
                          .op = Op::kRead,
                          .from_bytes = pages_offset_,
                          .skip = 5,
                          .count = FaultRule::kAlways});
  }
  return plan;
}

void DiskHarm::calm(blockdev::MemoryDevice& disk) {
  disk.set_plan(plan());
}

void DiskHarm::heal(blockdev::MemoryDevice& disk) {
  permanent_.clear();
  capacity_bytes_ = kUnlimited;
  calm(disk);
}

void DiskHarm::calm_and_cut_soon(blockdev::MemoryDevice& disk, std::uint64_t within_operations) {
  blockdev::FaultPlan soon = plan();
  soon.crash_after_ops = disk.op_count() + dice_.below(within_operations);
  disk.set_plan(std::move(soon));
}

Survival DiskHarm::any_survival() {
  const Survival all[] = {Survival::kNone, Survival::kAll, Survival::kWhole, Survival::kRandom};
  return all[dice_.below(4)];
}

bool DiskHarm::act(FaultKind kind, blockdev::MemoryDevice& disk) {
  const Op transfers[] = {Op::kRead, Op::kWrite, Op::kFlush};
  const std::uint64_t skip = dice_.below(30);
  const Op either = dice_.one_in(2) ? Op::kRead : Op::kWrite;
  switch (kind) {
    case FaultKind::kCrash:
    case FaultKind::kReorder:
    case FaultKind::kTorn:
      survival_ = kind == FaultKind::kCrash     ? Survival::kNone
                  : kind == FaultKind::kReorder ? Survival::kWhole
                                                : Survival::kRandom;
      calm_and_cut_soon(disk, 200);
      return true;
    case FaultKind::kReadError:
      set(disk, {.fault = Fault::kError, .op = Op::kRead, .skip = skip, .count = dice_.between(1, 5)});
      return true;
    case FaultKind::kWriteError:
      set(disk, {.fault = Fault::kError, .op = Op::kWrite, .skip = skip});
      return true;
    case FaultKind::kFlushError:
      set(disk, {.fault = Fault::kError, .op = Op::kFlush, .skip = skip / 4});
      return true;
    case FaultKind::kPermanentError:
      permanent_.push_back(
          {.fault = Fault::kError, .op = transfers[dice_.below(3)], .skip = skip, .count = FaultRule::kAlways});
      calm(disk);
      return true;
    case FaultKind::kSlow:
      set(disk,
          {.fault = Fault::kSlow, .count = FaultRule::kAlways, .delay_ns = dice_.between(1, 50) * kMillisecondNs});
      return true;
    case FaultKind::kStuck:
      set(disk, {.fault = Fault::kStuck, .op = transfers[dice_.below(3)], .skip = skip, .count = dice_.between(1, 20)});
      return true;
    case FaultKind::kFull:
      capacity_bytes_ = full() ? kUnlimited : disk.used_bytes() + dice_.below(512_KiB);
      calm(disk);
      return true;
    case FaultKind::kLatent:
      world_.damaged = true;
      set(disk, {.fault = Fault::kBadSector, .op = either, .from_bytes = pages_offset_, .skip = skip});
      return true;
    case FaultKind::kBitRot:
      world_.damaged = true;
      set(disk, {.fault = Fault::kBitRot, .op = either, .from_bytes = pages_offset_, .skip = skip});
      return true;
    case FaultKind::kMisdirect:
      world_.damaged = world_.writes_lost = true;
      set(disk, {.fault = Fault::kMisdirect, .op = Op::kWrite, .from_bytes = pages_offset_, .skip = skip});
      return true;
    case FaultKind::kPhantom:
      world_.damaged = world_.writes_lost = true;
      set(disk, {.fault = Fault::kPhantom, .op = Op::kWrite, .skip = skip});
      return true;
    default:
      return false;
  }
}

}  // namespace kelda::sim
