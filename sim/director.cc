#include "sim/director.h"

#include "runtime/core_sim.h"
#include "sim/audit.h"

namespace kelda::sim {

using blockdev::Survival;

namespace {

// After the last fault everybody gets through within this.
constexpr runtime::TimeNs kProgressBoundNs = 20 * kSecondNs;
constexpr runtime::TimeNs kLookEveryNs = 2 * kMillisecondNs;
constexpr int kMostStarts = 12;

void sleep_for(runtime::TimeNs duration_ns) {
  runtime::Core::current().sleep_until(runtime::now_ns() + duration_ns);
}

}  // namespace

void Director::run() {
  run_history();
  if (world_.trace.failed() || world_.writes_lost) return;
  if (const std::string anomalies = world_.isolation.verdict(world_.commands_may_fail); !anomalies.empty())
    world_.trace.fail("isolation", anomalies);
}

void Director::run_history() {
  auto disk = harm_.make_disk();
  if (!disk) return world_.trace.fail("cannot format", disk.error().to_string());
  disk_ = *std::move(disk);
  attack_ends_ns_ = runtime::now_ns() + world_.config.duration_ns;
  start_clients();
  while (start()) {
    const Ending how = serve();
    if (how == Ending::kAbandoned) break;
    if (how == Ending::kFinished) return leave();
    end(how);
    if (world_.trace.failed()) break;
  }
  // Given up; the report says why.
  world_.over = true;
  if (instance_ != nullptr) end(Ending::kKill);
  while (world_.clients_running > 0) sleep_for(10 * kMillisecondNs);
}

void Director::start_clients() {
  for (std::uint32_t i = 0; i < world_.config.clients + world_.config.transactors; ++i) {
    clients_.push_back(std::make_unique<SimClient>(world_, i));
    SimClient& client = *clients_.back();
    ++world_.clients_running;
    auto spawned = runtime_.core(i % runtime_.core_count())
                       .spawn_remote(
                           [&client, this] {
                             client.run();
                             --world_.clients_running;
                           },
                           {.name = "sim-client"});
    KELDA_ASSERT(spawned.has_value());
  }
}

bool Director::start() {
  for (int attempt = 0; attempt < kMostStarts; ++attempt) {
    world_.trace.event("start {}", ++starts_);
    ++world_.report().starts;
    (void)check_image(world_, *disk_, "before start", false);
    if (world_.trace.failed()) return false;
    std::unique_ptr<blockdev::MemoryDevice> twin;
    if (world_.config.faults.has(FaultKind::kClone) && dice_.one_in(2)) twin = disk_->snapshot(Survival::kAll);
    const bool cut = !quiet() && world_.config.faults.has(FaultKind::kRecoveryCut) && dice_.one_in(2);
    cut ? harm_.calm_and_cut_soon(*disk_, 400) : harm_.calm(*disk_);
    auto started = Instance::start(runtime_, *disk_, world_.config, starts_);
    if (started) {
      instance_ = *std::move(started);
      const OpenReport& opened = instance_->opened();
      world_.trace.event("recovered: {} records, {} transactions undone, {} torn pages repaired{}", opened.records,
                         opened.undone_transactions, opened.pages_repaired, opened.was_clean ? ", was clean" : "");
      if (audit_or_retry()) {
        if (twin != nullptr) serve_a_twin(*twin);
        world_.server = &instance_->server();
        world_.listener = &instance_->listener();
        ++world_.incarnation;
        return !world_.trace.failed();
      }
      if (world_.trace.failed()) return false;
      continue;
    }
    world_.trace.event("does not open: {}", started.error().to_string());
    if (disk_->dead()) {
      reboot(harm_.any_survival());
    } else if (world_.damaged) {
      assign(world_.report().note,
             "the damage makes the disk unreadable, and the engine says so: " + started.error().to_string());
      return false;
    } else if (harm_.full() || (disk_->faults_hit() > 0 && !world_.config.faults.has(FaultKind::kRottenReads))) {
      harm_.heal(*disk_);
      reboot(Survival::kAll);
    } else {
      world_.trace.fail("does not open", started.error().to_string());
      return false;
    }
  }
  world_.trace.fail("does not come up", fmt::format("{} starts in a row have failed", kMostStarts));
  return false;
}

// Before any client is let in. False if the disk failed meanwhile; then it has been rebooted.
bool Director::audit_or_retry() {
  const Result<> done = audit(world_, *instance_);
  if (world_.trace.failed()) return false;
  if (done) {
    world_.trace.event("audit passed");
    return true;
  }
  const bool excused = disk_->dead() || disk_->faults_hit() > 0 || harm_.full() || world_.damaged;
  if (!excused) world_.trace.fail("audit impossible", done.error().to_string());
  world_.trace.event("audit ended by {}", done.error().to_string());
  if (!disk_->dead()) harm_.heal(*disk_);
  auto image = disk_->crash(harm_.any_survival(), dice_.next());
  (void)instance_->stop(false);
  instance_.reset();
  disk_ = std::move(image);
  return false;
}

// A second machine on a copy of the disk, while the first one runs: both are what clients were told, and serve.
void Director::serve_a_twin(const blockdev::MemoryDevice& disk) {
  auto copy = disk.snapshot(Survival::kAll);
  auto twin = Instance::start(runtime_, *copy, world_.config, starts_ + 1'000'000);
  if (!twin) {
    if (!world_.damaged) world_.trace.fail("twin does not open", twin.error().to_string());
    return;
  }
  world_.trace.event("a twin starts on a copy of the disk");
  const Result<> audited = audit(world_, **twin);
  if (!audited && !world_.damaged) world_.trace.fail("twin audit impossible", audited.error().to_string());
  auto connection = (*twin)->listener().dial();
  if (connection) {
    RespClient client(**connection);
    const auto set = client.call({"SET", "twin", "1"}, runtime::now_ns() + kSecondNs * 10);
    const auto del = client.call({"DEL", "twin"}, runtime::now_ns() + kSecondNs * 10);
    const bool served = set && del && (set->is("OK") || set->is_error("DISKFULL"));
    if (!served && !world_.damaged)
      world_.trace.fail("twin does not serve", set ? set->to_string() : set.error().to_string());
  }
  const Result<> stopped = (*twin)->stop(true);
  if (!stopped && !world_.damaged) world_.trace.fail("twin does not stop", stopped.error().to_string());
  if (stopped) (void)check_image(world_, *copy, "twin", true);
}

// A scrub goes on all the time, and finds nothing where nothing was done to the disk.
void Director::watch_scrub() {
  if (world_.config.scrub_bytes_per_s == 0) return;
  const ScrubStatus status = instance_->database().scrub_status();
  if (!status.running) (void)instance_->database().start_scrub();
  if (status.total_errors > 0 && !world_.damaged && !world_.config.faults.has_io_errors()) {
    world_.trace.fail("false alarm", "the scrub says: " + status.last_error);
  }
}

Director::Ending Director::serve() {
  runtime::TimeNs next_deed_ns = runtime::now_ns() + dice_.between(1, world_.config.fault_every_ns);
  wanted_ = Ending::kNone;
  while (true) {
    sleep_for(kLookEveryNs);
    if (world_.trace.failed()) return Ending::kAbandoned;
    if (disk_->dead()) return Ending::kPowerCut;
    if (wanted_ != Ending::kNone) return wanted_;
    if (const auto health = instance_->database().health(); !health) {
      world_.trace.event("the engine has failed: {}", health.error().to_string());
      sleep_for(dice_.between(1, 100) * kMillisecondNs);  // until the operator comes
      return Ending::kFailed;
    }
    if (const std::string over = instance_->over_memory(); !over.empty()) world_.trace.fail("over memory", over);
    watch_scrub();
    const runtime::TimeNs now = runtime::now_ns();
    if (!quiet() && now >= attack_ends_ns_) {
      harm_.heal(*disk_);
      healed_ns_ = now;
      world_.trace.event("last fault; now everybody must get through");
    }
    if (quiet()) {
      if (world_.damaged ? now > healed_ns_ + kSecondNs : all_progressed()) return Ending::kFinished;
      if (now > healed_ns_ + kProgressBoundNs) world_.trace.fail("no progress", laggards());
    } else if (now >= next_deed_ns) {
      act();
      next_deed_ns = now + dice_.between(1, 2 * world_.config.fault_every_ns);
    }
  }
}

bool Director::all_progressed() const {
  for (const auto& client : clients_) {
    if (client->last_success_ns() <= healed_ns_) return false;
  }
  return true;
}

std::string Director::laggards() const {
  std::string text = fmt::format("{} s after the last fault there is no success for", kProgressBoundNs / kSecondNs);
  for (const auto& client : clients_) {
    if (client->last_success_ns() <= healed_ns_)
      text += fmt::format("\n  client {} ({})", client->number(), client->doing());
  }
  return text + "\n  parked: " + runtime::parked_fibers(runtime_);
}

void Director::act() {
  const auto kinds = world_.config.faults.kinds();
  if (kinds.empty()) return;
  const FaultKind kind = kinds[dice_.below(kinds.size())];
  ++world_.report().faults;
  world_.trace.event("fault: {}", name_of(kind));
  if (!harm_.act(kind, *disk_)) act_around(kind);
}

void Director::act_around(FaultKind kind) {
  SimClient& client = *clients_[dice_.below(clients_.size())];
  switch (kind) {
    case FaultKind::kKill:
    case FaultKind::kRecoveryCut:
    case FaultKind::kClone:
    case FaultKind::kGrow:
      wanted_ = Ending::kKill;
      return;
    case FaultKind::kRestart:
      wanted_ = Ending::kRestart;
      return;
    case FaultKind::kCut:
      return client.cut();
    case FaultKind::kVanish:
      return client.vanish();
    case FaultKind::kClock: {
      const std::int64_t before = WallClock::now_ms();
      const auto by_ms = static_cast<std::int64_t>(dice_.one_in(2) ? dice_.below(2'000) : dice_.below(100'000));
      runtime::shift_wall_clock((dice_.one_in(2) ? by_ms : -by_ms) * 1000);
      world_.wall.jumped(before, WallClock::now_ms());
      return;
    }
    case FaultKind::kMemory:
      return instance_->page_map().refuse_maps(dice_.between(1, 30));
    default:
      harm_.calm(*disk_);
  }
}

void Director::reboot(Survival survival) {
  disk_ = disk_->crash(survival, dice_.next());
}

void Director::end(Ending how) {
  world_.listener = nullptr;
  world_.server = nullptr;
  if (how == Ending::kRestart) {
    harm_.calm(*disk_);  // nothing may stay stuck for ever
    world_.trace.event("clean stop");
    const Result<> stopped = instance_->stop(true);
    instance_.reset();
    if (!stopped && disk_->faults_hit() == 0 && !harm_.full() && !world_.damaged && !disk_->dead()) {
      world_.trace.fail("does not stop", stopped.error().to_string());
    }
    world_.trace.event("stopped: {}", stopped ? "cleanly" : stopped.error().to_string());
    reboot(stopped ? Survival::kNone : harm_.any_survival());
    if (stopped) (void)check_image(world_, *disk_, "after a clean stop", true);
  } else {
    const Survival survival = how == Ending::kPowerCut ? harm_.survival()
                              : how == Ending::kKill   ? Survival::kAll
                                                       : harm_.any_survival();
    world_.trace.event("{}", how == Ending::kPowerCut ? "power cut"
                             : how == Ending::kKill   ? "kill"
                                                      : "restart after a failure");
    auto image = disk_->crash(survival, dice_.next());
    (void)instance_->stop(false);
    instance_.reset();
    disk_ = std::move(image);
  }
  if (world_.config.faults.has(FaultKind::kGrow) && dice_.one_in(3)) {
    disk_->grow(disk_->info().size_bytes + dice_.between(1, 8) * 1_MiB);
    world_.trace.event("the disk is larger: {} MiB", disk_->info().size_bytes >> 20);
  }
  harm_.heal(*disk_);
}

void Director::leave() {
  world_.over = true;
  const runtime::TimeNs give_up_ns = runtime::now_ns() + kProgressBoundNs;
  while (world_.clients_running > 0 && runtime::now_ns() < give_up_ns) sleep_for(10 * kMillisecondNs);
  if (world_.clients_running > 0) {
    std::string who;
    for (const auto& client : clients_) who += fmt::format("\n  client {} ({})", client->number(), client->doing());
    world_.trace.fail("client does not end", who + "\n  parked: " + runtime::parked_fibers(runtime_));
    if (give_up_ != nullptr) give_up_();
  }
  end(Ending::kRestart);
  if (world_.trace.failed() || !start()) return;
  end(Ending::kRestart);
}

}  // namespace kelda::sim
