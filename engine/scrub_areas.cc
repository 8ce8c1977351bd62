// Scrubbing of what is not pages: superblock, log, double-write area.
#include <mutex>

#include "engine/database_impl.h"
#include "engine/scrub.h"
#include "wal/batch_reader.h"

namespace kelda::engine {

namespace {

constexpr runtime::TimeNs kSettleNs = 200'000'000;
constexpr int kReads = 5;

}  // namespace

bool Scrubber::checkpoint() { return !ended() && db_.log().checkpoint().has_value(); }

void Scrubber::area_found(std::string text) {
  {
    std::scoped_lock guard(latch_);
    ++status_.errors;
    ++status_.total_errors;
    status_.last_error = text;
    status_.last_error_page = -1;
  }
  if (told_.insert(text).second && options_.report) options_.report(text);
}

// A copy that is being written may read torn: bad is what stays bad for a second in which no checkpoint ended.
void Scrubber::check_superblock() {
  const auto both_verify = [this]() -> Result<bool> { return TRY(disk::Superblock::read(db_.mutable_device())).valid_copies() == 2; };
  std::uint64_t checkpoints = db_.log().stats().checkpoints;
  for (int bad = 0, tries = 0; bad < kReads; ++bad, ++tries) {
    if (tries == 10 * kReads || !pace(2 * kPageBytes)) return;
    const auto good = both_verify();
    if (good && *good) return;
    if (const std::uint64_t now = db_.log().stats().checkpoints; now != checkpoints) {
      checkpoints = now;
      bad = 0;
    }
    if (!pause(kSettleNs)) return;
  }
  area_found("superblock: one of its two copies does not verify; a checkpoint writes it again");
  for (int copy = 0; copy < 2; ++copy) {  // they are written in turn
    if (!checkpoint()) return;
    const auto good = both_verify();
    if (!good || !*good) continue;
    told_.clear();
    return update([](ScrubStatus& s, std::uint64_t) { ++s.repaired, ++s.total_repaired; });
  }
}

// From the redo point to what was durable when it began. False: damaged, if nothing moved the redo point meanwhile.
Result<bool> Scrubber::log_is_whole() {
  const Lsn durable = db_.log().durable();
  const auto superblock = TRY(disk::Superblock::read(db_.mutable_device()));
  wal::BatchReader reader(db_.mutable_device(), superblock.layout(), superblock.checkpoint());
  Lsn last;
  for (std::uint64_t read_bytes = 0;;) {
    const auto batch = reader.next();
    if (!batch || !*batch) break;
    last = std::max(last, Lsn{(*batch)->header.last_lsn});
    if (last >= durable) return true;
    const std::uint64_t bytes = reader.bytes_read() - read_bytes;
    read_bytes += bytes;
    if (!pace(bytes)) return true;
  }
  if (last >= durable) return true;
  const auto now = TRY(disk::Superblock::read(db_.mutable_device()));
  if (now.checkpoint().log_position != superblock.checkpoint().log_position) return Error(Code::kRestart);
  return false;
}

void Scrubber::check_log() {
  for (int tries = 0, bad = 0; tries < 2 * kReads && !ended(); ++tries) {
    const auto whole = log_is_whole();
    if (whole && *whole) return;
    if (whole) ++bad;
    if (bad < 2) {
      if (!pause(kSettleNs)) return;
      continue;
    }
    area_found("log: a part that recovery would need does not verify; a checkpoint makes it unneeded");
    if (!checkpoint()) return;
    if (const auto after = log_is_whole(); after && *after) {
      told_.clear();
      update([](ScrubStatus& s, std::uint64_t) { ++s.repaired, ++s.total_repaired; });
    }
    return;
  }
}

// Only slots that the store says are at rest. What is damaged there is overwritten soon; it would matter in a crash before.
void Scrubber::check_copies() {
  for (std::uint64_t area = 0; area < db_.store().copy_areas(); ++area) {
    if (!pace(db_.store().copy_area_bytes())) return;
    auto checked = db_.store().check_copy_area(area);
    if (checked.failed_with(Code::kCorrupt)) area_found(checked.error().message());
  }
}

}  // namespace kelda::engine
