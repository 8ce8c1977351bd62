// The rules of the double-write ring, without a device.
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "common/prng.h"
#include "disk/slot_ring.h"

namespace kelda::disk {
namespace {

void flush(SlotRing& ring) {
  ring.flush_started();
  ring.flush_done();
}

TEST(SlotRing, ASlotIsNotOverwrittenBeforeAFlushCoversItsWritesInPlace) {
  SlotRing ring(2);
  auto first = ring.claim(), second = ring.claim();
  ASSERT_TRUE(first && second);
  EXPECT_NE(first->slot, second->slot);
  ring.slot_durable(*first);
  ring.in_place(*first);
  EXPECT_FALSE(ring.claim());
  EXPECT_TRUE(ring.wants_flush());
  flush(ring);
  auto third = ring.claim();
  ASSERT_TRUE(third);
  EXPECT_EQ(third->slot, first->slot);
  EXPECT_EQ(third->complete_through, 1u);
}

TEST(SlotRing, AWriteThatCameInPlaceAfterTheFlushBeganIsNotCovered) {
  SlotRing ring(2);
  auto first = ring.claim(), second = ring.claim();
  ring.flush_started();
  ring.in_place(*first);
  ring.flush_done();
  EXPECT_EQ(ring.complete_through(), 0u);
  EXPECT_FALSE(ring.claim());
  flush(ring);
  EXPECT_EQ(ring.complete_through(), 1u);
  (void)second;
}

TEST(SlotRing, TheNextOldestWaitsUntilItsElderIsRecorded) {
  SlotRing ring(2);
  auto first = ring.claim(), second = ring.claim();
  ring.in_place(*first);
  ring.in_place(*second);
  flush(ring);
  auto third = ring.claim();
  ASSERT_TRUE(third);
  EXPECT_FALSE(ring.claim()) << "batch 1 is not yet recorded as complete by a durable header";
  EXPECT_FALSE(ring.wants_flush());
  ring.slot_durable(*third);
  EXPECT_TRUE(ring.claim());
}

// Any interleaving goes on: whenever no claim is possible, some batch can take its next step or a flush helps.
TEST(SlotRing, NeverGetsStuck) {
  for (std::uint64_t seed = 1; seed < 200; ++seed) {
    Prng prng(seed);
    SlotRing ring(2 + prng.below(3));
    struct Batch { SlotRing::Claim claim; int step = 0; };
    std::vector<Batch> batches;
    std::uint64_t claimed = 0;
    for (int turn = 0; turn < 2000 && claimed < 200; ++turn) {
      if (prng.below(2) == 0 || batches.empty()) {
        if (auto claim = ring.claim()) {
          batches.push_back({*claim});
          ++claimed;
        } else if (ring.wants_flush()) {
          flush(ring);
        } else {
          ASSERT_FALSE(batches.empty());
        }
        continue;
      }
      const std::size_t i = prng.below(batches.size());
      if (batches[i].step++ == 0) {
        ring.slot_durable(batches[i].claim);
      } else {
        ring.in_place(batches[i].claim);
        batches.erase(batches.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
    EXPECT_EQ(claimed, 200u) << "seed " << seed;
  }
}

}  // namespace
}  // namespace kelda::disk
