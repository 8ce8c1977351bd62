#include "bufferpool/page_map_sim.h"

#include <cstring>

#include "common/assert.h"

namespace kelda::bufferpool {

Result<std::unique_ptr<SimulatedPageMap>> SimulatedPageMap::create(std::uint64_t page_count, bool reference_bits) {
  auto map = std::make_unique<SimulatedPageMap>();
  map->memory_ = TRY(LazyArray<std::byte>::create(page_count * kPageBytes));
  map->states_ = TRY(LazyArray<std::atomic<std::uint8_t>>::create(page_count));
  map->referenced_ = TRY(LazyArray<std::atomic<std::uint8_t>>::create(page_count));
  map->reference_bits_ = reference_bits;
  return map;
}

void SimulatedPageMap::change(PageId page, State from, State to) {
  const std::uint8_t before = states_[page.value].exchange(to);
  KELDA_ASSERT(before == from);
  if (from == kMapped) mapped_.fetch_sub(1);
  if (to == kMapped) mapped_.fetch_add(1);
}

Result<> SimulatedPageMap::map(PageId page, FrameId) {
  std::uint64_t refuse = refuse_.load();
  while (refuse > 0 && !refuse_.compare_exchange_weak(refuse, refuse - 1)) {
  }
  if (refuse > 0) return Error(Code::kOutOfMemory, "no memory for a page's entry, as planned");
  change(page, kNothing, kMapped);
  set_reference(page);
  return {};
}

PageMap::Epoch SimulatedPageMap::unmap(std::span<const PageId> pages) {
  for (PageId page : pages) change(page, kMapped, kInLimbo);
  return epoch_.fetch_add(1) + 1;
}

bool SimulatedPageMap::passed(Epoch epoch) {
  if (pass_.load()) passed_.store(epoch_.load());
  return passed_.load() >= epoch;
}

void SimulatedPageMap::restore(PageId page) {
  change(page, kInLimbo, kMapped);
  set_reference(page);
}

void SimulatedPageMap::release(std::span<const PageId> pages) {
  for (PageId page : pages) {
    states_[page.value].store(kNothing);
    std::memset(memory_.data() + page.value * kPageBytes, static_cast<int>(kPoison), kPageBytes);
  }
}

void SimulatedPageMap::take_references(std::span<const PageId> pages, std::span<bool> referenced) {
  for (std::size_t i = 0; i < pages.size(); ++i) referenced[i] = referenced_[pages[i].value].exchange(0) != 0;
}

}  // namespace kelda::bufferpool
