// Verifies the disk under a running database, in the background and at a bounded rate.
//
// Contract
//  - Everything is read from the device, past the pool: every page in use (checksum, number, place, and the order of a
//    tree node), the two superblock copies, the log from its redo point on, the double-write area.
//  - No false alarm: a page that is dirty, going out or latched has no settled place on the device, and is looked at
//    again later; whatever happens to a page during the read shows in its state word (BufferPool::settled), and a page
//    that was freed meanwhile shows in its space map. Problems are confirmed by a second read. Short memory is waited for.
//  - No more than bytes_per_s is read, over any stretch of time longer than one read of kRunPages pages (the log: 1 MiB).
//  - Repair: a page whose content is in the pool is written again by the ordinary write-back; a superblock copy by a
//    checkpoint, which also makes a damaged part of the log unneeded. All else is left as it is and reported.
//  - What is wrong with a page is told once to options.report, and counted in each run.
//
// Runs in one fiber. start(), cancel(), stop() and status() from any core.
#pragma once

#include <optional>
#include <set>
#include <vector>

#include "disk/aligned_buffer.h"
#include "kelda/kelda.h"
#include "runtime/sync.h"

namespace kelda::engine {

class DatabaseImpl;

class Scrubber {
 public:
  static constexpr std::size_t kRunPages = 16;

  Scrubber(DatabaseImpl& db, ScrubOptions options);
  // The background fiber: runs at every interval and when asked, until stop().
  void run();
  void stop();
  Result<> start();  // kBusy: one is running
  void cancel();     // ends the run under way
  ScrubStatus status() const;

 private:
  enum class Seen { kSound, kDamaged, kUnsettled, kGone };
  struct Finding {
    PageId page;
    std::string text;
  };

  void run_once();
  bool ended() const { return stopping_.load() || cancelled_.load(); }
  // Waits until so many bytes may be read. False: the run is to end.
  bool pace(std::uint64_t bytes);
  bool pause(runtime::TimeNs ns);

  void check_pages();
  void check_group(PageId map_page, const std::byte* map);
  void check_run(std::span<const PageId> pages);
  Seen judge(PageId page, std::optional<std::uint64_t> mark, const Result<>& read, const std::byte* bytes, std::string& problem);
  void look_again(PageId page);
  Seen look_closely(PageId page, std::string& problem);
  std::optional<bool> in_use(PageId page);  // nothing: no memory to look
  void found(PageId page, std::string problem);
  void check_unsettled();
  void repair_pages();

  // scrub_areas.cc
  void check_superblock();
  void check_log();
  Result<bool> log_is_whole();
  void check_copies();
  void area_found(std::string text);
  bool checkpoint();

  void update(void (*change)(ScrubStatus&, std::uint64_t), std::uint64_t value = 1);

  DatabaseImpl& db_;
  const ScrubOptions options_;
  disk::AlignedBuffer buffer_{kRunPages * kPageBytes}, one_{kPageBytes}, map_{kPageBytes};
  std::vector<PageId> unsettled_, to_repair_;
  std::set<std::uint64_t> told_pages_;   // in any run
  std::set<std::string> told_;
  runtime::TimeNs due_ns_ = 0;

  std::atomic<bool> wanted_{false}, cancelled_{false}, stopping_{false};
  runtime::Event wake_;
  mutable runtime::SpinLatch latch_;  // status_
  ScrubStatus status_;
};

}  // namespace kelda::engine
