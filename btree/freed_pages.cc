#include "btree/freed_pages.h"

#include <algorithm>
#include <bit>
#include <new>

namespace kelda::btree {

namespace {
constexpr std::uint64_t mask(unsigned bit) { return std::uint64_t{1} << bit % 64; }
}  // namespace

void FreedPages::add(PageId page) {
  std::unique_ptr<Group>& group = groups_[page.value / kGroupPages];
  if (group == nullptr) group.reset(new (std::nothrow) Group);
  if (group == nullptr) return;
  const auto bit = static_cast<unsigned>(page.value % kGroupPages);
  group->freed[bit / 64] |= mask(bit);
  ++waiting_;
}

void FreedPages::remove(PageId page) {
  Group* group = groups_[page.value / kGroupPages].get();
  if (group == nullptr) return;
  const auto bit = static_cast<unsigned>(page.value % kGroupPages);
  if (((group->freed[bit / 64] | group->aging[bit / 64]) & mask(bit)) != 0) --waiting_;
  for (Bits* bits : {&group->freed, &group->aging, &group->ready}) (*bits)[bit / 64] &= ~mask(bit);
}

// An earlier checkpoint that did not come to its end leaves pages aging: this one covers them too.
void FreedPages::checkpoint_starts() {
  for (const auto& group : groups_) {
    if (group == nullptr) continue;
    for (std::size_t i = 0; i < kWords; ++i) group->aging[i] |= group->freed[i];
    group->freed = {};
  }
}

void FreedPages::checkpoint_done() {
  for (std::uint64_t g = 0; g < groups_.size(); ++g) {
    Group* group = groups_[g].get();
    if (group == nullptr) continue;
    for (std::size_t i = 0; i < kWords; ++i) {
      waiting_ -= static_cast<std::uint64_t>(std::popcount(group->aging[i]));
      group->ready[i] |= group->aging[i];
    }
    group->aging = {};
    drop_if_empty(g);
  }
  next_group_ = 0;
}

std::optional<FreedPages::Run> FreedPages::take_run(unsigned max_pages) {
  for (; next_group_ < groups_.size(); ++next_group_) {
    if (groups_[next_group_] == nullptr) continue;
    if (auto run = take_in(next_group_, max_pages)) return run;
    drop_if_empty(next_group_);
  }
  return std::nullopt;
}

std::optional<FreedPages::Run> FreedPages::take_in(std::uint64_t index, unsigned max_pages) {
  Bits& ready = groups_[index]->ready;
  const auto is_ready = [&](unsigned bit) { return (ready[bit / 64] & mask(bit)) != 0; };
  for (unsigned bit = 0; bit < kGroupPages;) {
    if (bit % 64 == 0 && ready[bit / 64] == 0) {
      bit += 64;
      continue;
    }
    unsigned end = bit;
    while (end < kGroupPages && end - bit < max_pages && is_ready(end)) ++end;
    if (end - bit >= std::min(kMinRunPages, max_pages)) {
      for (unsigned i = bit; i < end; ++i) ready[i / 64] &= ~mask(i);
      return Run{PageId(index * kGroupPages + bit), end - bit};
    }
    bit = std::max(end, bit + 1);
  }
  return std::nullopt;
}

void FreedPages::drop_if_empty(std::uint64_t index) {
  const Group& group = *groups_[index];
  const auto empty = [](const Bits& bits) { return std::ranges::all_of(bits, [](std::uint64_t word) { return word == 0; }); };
  if (empty(group.freed) && empty(group.aging) && empty(group.ready)) groups_[index].reset();
}

}  // namespace kelda::btree
