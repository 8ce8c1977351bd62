#include "btree/descent.h"
#include "btree/ops.h"
#include "btree/space.h"
#include "btree/space_map.h"
#include "bufferpool/pool_inline.h"
#include "common/assert.h"
#include "common/planted_bug.h"

namespace kelda::btree {

namespace {
constexpr int kLatchTries = 2000;
}

SpaceStep::SpaceStep(bufferpool::BufferPool& pool, std::span<const PageId> pages, bool set) : pool_(pool), set_(set) {
  runs_.reserve(pages.size() * 2);
  for (const PageId page : pages) {
    const PageId map = map_of(page);
    const auto bit = static_cast<std::uint16_t>(bit_of(page));
    const bool same_map = !maps_.empty() && maps_.back().page == map;
    if (bit == 0 || (same_map && runs_[runs_.size() - 2] + runs_.back() > bit)) refused_ = page;
    if (same_map && runs_[runs_.size() - 2] + runs_.back() == bit) {
      ++runs_.back();
      continue;
    }
    if (!same_map) {
      KELDA_ASSERT(maps_.empty() || maps_.back().page < map);
      maps_.push_back({map, runs_.size(), 0});
    }
    runs_.push_back(bit);
    runs_.push_back(1);
    maps_.back().end = runs_.size();
  }
  guards_.reserve(maps_.size());
}

Result<> SpaceStep::prepare() {
  for (const Map& map : maps_) {
    std::uint64_t version;
    if (!pool_.optimistic_begin(map.page, version)) TRY(pool_.make_resident(map.page));
  }
  return {};
}

Result<bool> SpaceStep::try_latch() {
  for (const Map& map : maps_) {
    bool held = false;
    for (int i = 0; i < kLatchTries && !held; ++i) {
      std::uint64_t version;
      held = pool_.optimistic_begin(map.page, version) && pool_.try_upgrade(map.page, version);
      if (!held) __builtin_ia32_pause();
    }
    if (!held) {
      guards_.clear();
      return false;
    }
    guards_.push_back(bufferpool::ExclusiveGuard::adopt(pool_, map.page));
  }
  if (!set_ && !planted(Bug::kFreePageFreedAgain)) {
    if (Result<> in_use = check_in_use(); !in_use) {
      guards_.clear();
      return std::move(in_use).error();
    }
  }
  return true;
}

Result<> SpaceStep::check_in_use() {
  if (refused_ != kNoPage) return corrupt_page(refused_, "it cannot be freed: it is a space map, or referred to twice");
  for (std::size_t i = 0; i < maps_.size(); ++i) {
    for (std::size_t run = maps_[i].begin; run < maps_[i].end; run += 2) {
      for (unsigned bit = runs_[run]; bit < unsigned{runs_[run]} + runs_[run + 1]; ++bit) {
        if (!test_bit(guards_[i].data(), bit)) {
          return corrupt_page(PageId(maps_[i].page.value + bit), "a tree refers to it, but in the space map it is free");
        }
      }
    }
  }
  return {};
}

void SpaceStep::add_to(std::vector<wal::PageChange>& changes) const {
  if (set_ && planted(Bug::kSpaceMapBitNotLogged)) return;
  const PageOp op = set_ ? PageOp::kSetBits : PageOp::kClearBits;
  for (const Map& map : maps_) {
    const Bytes runs{reinterpret_cast<const std::byte*>(runs_.data() + map.begin), (map.end - map.begin) * 2};
    changes.push_back({map.page, static_cast<std::uint8_t>(op), runs, {}, {}});
  }
}

void SpaceStep::finish(Lsn lsn) {
  KELDA_ASSERT(guards_.size() == maps_.size());
  for (std::size_t i = 0; i < maps_.size(); ++i) {
    for (std::size_t run = maps_[i].begin; run < maps_[i].end; run += 2) {
      change_bits(guards_[i].data(), runs_[run], runs_[run + 1], set_);
    }
    guards_[i].mark_dirty(lsn);
  }
  guards_.clear();
}

}  // namespace kelda::btree
