// Which slot of the double-write area a batch may take, and what its header may say. No I/O.
//
// A batch goes: claimed -> slot durable -> in place -> complete (a flush covered its writes in place). Batches are
// numbered densely; batch n lies in slot n % slot_count, so it overwrites batch n - slot_count.
//
//   complete_through   every batch up to this one is complete
//   recorded_through   a durable slot header says so
//
// Invariants
//  S1. A batch is claimed only when the batch that it overwrites, p, is complete, and everything older than p is
//      recorded as complete. So at any moment, and after any crash, if a slot holds a page's copy and counts as in
//      flight, then the newest such copy is the newest version that ever began to be written in place: repair never
//      brings back an old one.
//  S2. Progress: if nothing may be claimed, then a batch that was claimed earlier is on its way, or a flush is missing,
//      which whoever waits may do.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

namespace kelda::disk {

class SlotRing {
 public:
  explicit SlotRing(std::uint64_t slot_count) : slot_count_(slot_count) {}

  struct Claim {
    std::uint64_t sequence, slot, complete_through;
  };
  // Nothing: not now (S1).
  std::optional<Claim> claim();
  // A claim would succeed once a flush is done.
  bool wants_flush() const;

  void slot_durable(const Claim& claim);
  void in_place(const Claim& claim);
  // Around a flush: what was in place at its start is complete at its end. Flushes do not overlap.
  void flush_started();
  void flush_done();

  // The batch that lies in the slot, whole, if it is one of ours and nothing is being written there.
  std::optional<std::uint64_t> at_rest_in(std::uint64_t slot) const;

  // After repair: everything up to `sequence` is in place, durably; headers say so up to `recorded_through`.
  void restart(std::uint64_t sequence, std::uint64_t recorded_through);
  std::uint64_t complete_through() const { return next_sequence_ - 1 - open_.size(); }

 private:
  enum class State : std::uint8_t { kClaimed, kInPlace, kFlushing, kComplete };
  State& state_of(std::uint64_t sequence) { return open_[sequence - complete_through() - 1]; }

  std::uint64_t slot_count_;
  std::uint64_t next_sequence_ = 1;
  std::uint64_t first_own_ = 1;  // batches from here on were claimed since the start
  std::uint64_t recorded_through_ = 0;
  std::deque<State> open_;  // of batches complete_through + 1 .. next_sequence - 1
};

}  // namespace kelda::disk
