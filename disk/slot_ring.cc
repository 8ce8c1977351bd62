#include "disk/slot_ring.h"

#include <algorithm>

#include "common/assert.h"
#include "common/planted_bug.h"

namespace kelda::disk {

std::optional<SlotRing::Claim> SlotRing::claim() {
  const std::uint64_t sequence = next_sequence_;
  if (sequence > slot_count_ && !planted(Bug::kSlotReusedTooEarly)) {
    const std::uint64_t overwritten = sequence - slot_count_;
    if (overwritten > complete_through() || overwritten - 1 > recorded_through_) return std::nullopt;  // S1
  }
  const Claim claim{sequence, sequence % slot_count_, complete_through()};
  ++next_sequence_;
  open_.push_back(State::kClaimed);
  return claim;
}

bool SlotRing::wants_flush() const {
  // The oldest open batch is the one that a claim waits for, if completion is what it waits for.
  return !open_.empty() && open_.front() == State::kInPlace;
}

std::optional<std::uint64_t> SlotRing::at_rest_in(std::uint64_t slot) const {
  const std::uint64_t last = next_sequence_ - 1;
  const std::uint64_t back = (last % slot_count_ + slot_count_ - slot) % slot_count_;
  if (last < first_own_ + back) return std::nullopt;
  const std::uint64_t sequence = last - back;
  if (sequence > complete_through() && open_[sequence - complete_through() - 1] == State::kClaimed) return std::nullopt;
  return sequence;
}

void SlotRing::slot_durable(const Claim& claim) {
  recorded_through_ = std::max(recorded_through_, claim.complete_through);
}

void SlotRing::in_place(const Claim& claim) {
  KELDA_ASSERT(state_of(claim.sequence) == State::kClaimed);
  state_of(claim.sequence) = State::kInPlace;
}

void SlotRing::flush_started() {
  for (State& state : open_) {
    KELDA_ASSERT(state != State::kFlushing);
    if (state == State::kInPlace) state = State::kFlushing;
  }
}

void SlotRing::flush_done() {
  for (State& state : open_) {
    if (state == State::kFlushing) state = State::kComplete;
  }
  while (!open_.empty() && open_.front() == State::kComplete) open_.pop_front();
}

void SlotRing::restart(std::uint64_t sequence, std::uint64_t recorded_through) {
  KELDA_ASSERT(open_.empty() && next_sequence_ == 1);
  next_sequence_ = first_own_ = sequence + 1;
  recorded_through_ = recorded_through;
}

}  // namespace kelda::disk
