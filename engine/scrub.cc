#include "engine/scrub.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "btree/space_map.h"
#include "engine/database_impl.h"

namespace kelda::engine {

namespace {

constexpr runtime::TimeNs kSecondNs = 1'000'000'000;
// A server that is restarted daily must be scrubbed as well: nothing remembers the last run across a restart.
constexpr runtime::TimeNs kFirstAfterNs = 300 * kSecondNs;
constexpr std::size_t kMaxUnsettled = 65'536;
constexpr int kUnsettledRounds = 5;
constexpr int kAttempts = 4;

}  // namespace

Scrubber::Scrubber(DatabaseImpl& db, ScrubOptions options) : db_(db), options_(std::move(options)) {
  status_.interval_s = options_.interval_s;
  status_.bytes_per_s = options_.bytes_per_s;
}

void Scrubber::run() {
  const runtime::TimeNs interval_ns = options_.interval_s * kSecondNs;
  runtime::TimeNs next_ns = interval_ns == 0 ? runtime::kNever : runtime::now_ns() + std::min(interval_ns, kFirstAfterNs);
  while (!stopping_.load()) {
    if (next_ns == runtime::kNever) wake_.wait();
    else wake_.wait_until(next_ns);
    wake_.reset();
    const bool due = runtime::now_ns() >= next_ns;
    if (stopping_.load() || (!wanted_.load() && !due)) continue;
    if (interval_ns != 0) next_ns = runtime::now_ns() + interval_ns;
    cancelled_.store(false);
    run_once();
    wanted_.store(false);
  }
}

void Scrubber::stop() {
  stopping_.store(true);
  wake_.set();
}

Result<> Scrubber::start() {
  if (wanted_.exchange(true) || status().running) return Error(Code::kBusy, "a scrub is running already");
  wake_.set();
  return {};
}

void Scrubber::cancel() {
  cancelled_.store(true);
  wake_.set();
}

ScrubStatus Scrubber::status() const {
  std::scoped_lock guard(latch_);
  return status_;
}

void Scrubber::update(void (*change)(ScrubStatus&, std::uint64_t), std::uint64_t value) {
  std::scoped_lock guard(latch_);
  change(status_, value);
}

bool Scrubber::pace(std::uint64_t bytes) {
  while (!ended()) {
    const runtime::TimeNs now = runtime::now_ns();
    if (now >= due_ns_) {
      // What was not used is not saved up: no burst after a pause.
      due_ns_ = now + bytes * kSecondNs / std::max<std::uint64_t>(options_.bytes_per_s, kPageBytes);
      return true;
    }
    pause(due_ns_ - now);
  }
  return false;
}

bool Scrubber::pause(runtime::TimeNs ns) {
  if (ended()) return false;
  wake_.wait_until(runtime::now_ns() + ns);
  wake_.reset();
  return !ended();
}

void Scrubber::run_once() {
  {
    std::scoped_lock guard(latch_);
    status_.running = true;
    ++status_.runs;
    status_.last_start_us = runtime::wall_clock_us();
    status_.pages_checked = status_.pages_unsettled = status_.errors = status_.repaired = 0;
    status_.pages_total = db_.space().stats().used_pages;
  }
  unsettled_.clear();
  to_repair_.clear();
  due_ns_ = 0;
  check_superblock();
  check_log();
  check_copies();
  check_pages();
  check_unsettled();
  repair_pages();
  std::scoped_lock guard(latch_);
  status_.running = false;
  status_.pages_unsettled = unsettled_.size();
  status_.last_run_complete = !ended();
  status_.last_end_us = runtime::wall_clock_us();
}

void Scrubber::check_pages() {
  const std::uint64_t page_count = db_.superblock().layout().page_count;
  for (std::uint64_t first = 0; first < page_count && !ended(); first += disk::kPagesPerSpaceMap) {
    {
      const auto take_map = [&] { return bufferpool::SharedGuard::take(db_.pool(), PageId{first}); };
      auto map = take_map();
      while (map.failed_with(Code::kOutOfMemory) && pause(kSecondNs)) map = take_map();
      // NotFound: groups come into use in order. Out of memory: the run was ended meanwhile.
      if (map.failed_with(Code::kNotFound) || map.failed_with(Code::kOutOfMemory)) return;
      if (!map) {
        found(PageId{first}, map.error().message());
        continue;
      }
      std::memcpy(map_.data(), map->data(), kPageBytes);
    }
    check_group(PageId{first}, map_.data());
  }
}

void Scrubber::check_group(PageId map_page, const std::byte* map) {
  const std::uint64_t count = std::min(disk::kPagesPerSpaceMap, db_.superblock().layout().page_count - map_page.value);
  std::vector<PageId> run;
  for (std::uint64_t i = 0; i <= count && !ended(); ++i) {
    const bool used = i < count && btree::test_bit(map, static_cast<unsigned>(i));
    if (used) run.push_back(PageId{map_page.value + i});
    if (run.size() == kRunPages || (!used && !run.empty())) {
      check_run(run);
      run.clear();
    }
  }
}

void Scrubber::check_run(std::span<const PageId> pages) {
  if (!pace(pages.size() * kPageBytes)) return;
  std::vector<std::optional<std::uint64_t>> marks;
  std::vector<std::byte*> into;
  for (const PageId page : pages) {
    marks.push_back(db_.pool().settled(page));
    into.push_back(buffer_.data() + into.size() * kPageBytes);
  }
  std::vector<Result<>> status(pages.size());
  db_.store().read_batch(pages, into, status);
  for (std::size_t i = 0; i < pages.size(); ++i) {
    std::string problem;
    const Seen seen = judge(pages[i], marks[i], status[i], into[i], problem);
    if (seen == Seen::kDamaged) look_again(pages[i]);
    if (seen == Seen::kUnsettled && unsettled_.size() < kMaxUnsettled) unsettled_.push_back(pages[i]);
    if (seen == Seen::kSound) told_pages_.erase(pages[i].value);
  }
  update([](ScrubStatus& s, std::uint64_t n) { s.pages_checked += n; }, pages.size());
  runtime::Core::current().yield();
}

// `mark` was taken before the read began.
Scrubber::Seen Scrubber::judge(PageId page, std::optional<std::uint64_t> mark, const Result<>& read, const std::byte* bytes,
                               std::string& problem) {
  if (!mark || !db_.pool().still_settled(page, *mark)) return Seen::kUnsettled;
  if (!read) {
    problem = read.error().message();  // the store has looked at the checksum and into nodes
  } else if (btree::map_of(page) == page && !btree::is_space_map(bytes)) {
    problem = "page " + std::to_string(page.value) + ": is no space map";
  }
  if (const auto lsn = db_.pool().settled_lsn(page, *mark); problem.empty() && lsn && lsn->value != disk::header_of(bytes).lsn) {
    problem = "page " + std::to_string(page.value) + ": an older version is in its place (a write was acknowledged and not made)";
  }
  if (problem.empty()) return Seen::kSound;
  const auto used = in_use(page);
  if (!used) return Seen::kUnsettled;
  if (!*used) return Seen::kGone;
  // A page that was freed and taken into use again was latched before its map showed it.
  return db_.pool().still_settled(page, *mark) ? Seen::kDamaged : Seen::kUnsettled;
}

std::optional<bool> Scrubber::in_use(PageId page) {
  const auto map = bufferpool::SharedGuard::take(db_.pool(), btree::map_of(page));
  if (map.failed_with(Code::kOutOfMemory)) return std::nullopt;
  return !map || btree::test_bit(map->data(), btree::bit_of(page));
}

// By itself, with a new mark.
Scrubber::Seen Scrubber::look_closely(PageId page, std::string& problem) {
  if (!pace(kPageBytes)) return Seen::kGone;
  const auto mark = db_.pool().settled(page);
  if (!mark) return Seen::kUnsettled;
  const Result<> read = db_.store().read(page, one_.data());
  return judge(page, mark, read, one_.data(), problem);
}

void Scrubber::look_again(PageId page) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::string problem;
    const Seen seen = look_closely(page, problem);
    if (seen == Seen::kDamaged) return found(page, std::move(problem));
    if (seen != Seen::kUnsettled) return;
  }
  if (unsettled_.size() < kMaxUnsettled) unsettled_.push_back(page);
}

// Pages that were changed or written just then. One that stays so is about to be written anyway.
void Scrubber::check_unsettled() {
  for (int round = 0; round < kUnsettledRounds && !unsettled_.empty() && pause(kSecondNs); ++round) {
    std::vector<PageId> again;
    again.swap(unsettled_);
    for (const PageId page : again) {
      if (in_use(page) == false) continue;
      std::string problem;
      const Seen seen = look_closely(page, problem);
      if (seen == Seen::kDamaged) found(page, std::move(problem));
      if (seen == Seen::kUnsettled) unsettled_.push_back(page);
      if (ended()) return;
    }
  }
}

void Scrubber::found(PageId page, std::string problem) {
  const bool repairable = db_.pool().write_again(page);
  if (repairable) to_repair_.push_back(page);
  {
    std::scoped_lock guard(latch_);
    ++status_.errors;
    ++status_.total_errors;
    status_.last_error_page = static_cast<std::int64_t>(page.value);
    status_.last_error = problem;
  }
  if (!told_pages_.insert(page.value).second || !options_.report) return;
  options_.report(problem + (repairable ? "; it is intact in memory and is written again" : "; it cannot be repaired here"));
}

void Scrubber::repair_pages() {
  if (to_repair_.empty() || !checkpoint()) return;
  for (const PageId page : to_repair_) {
    std::string problem;
    Seen seen = Seen::kUnsettled;
    for (int attempt = 0; attempt < kAttempts && seen == Seen::kUnsettled; ++attempt) seen = look_closely(page, problem);
    // Unsettled: it was changed again since, so it has been or will be written.
    if (seen != Seen::kDamaged) {
      told_pages_.erase(page.value);
      update([](ScrubStatus& s, std::uint64_t) { ++s.repaired, ++s.total_repaired; });
    }
  }
}

}  // namespace kelda::engine
