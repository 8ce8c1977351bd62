#include "engine/read_ahead.h"

#include <algorithm>
#include <cstring>

#include "runtime/core.h"

namespace kelda::engine {

namespace {

constexpr std::size_t kMostChunks = 32;
constexpr std::size_t kMostWanted = 16'384;  // further hints are dropped

}  // namespace

ReadAhead::ReadAhead(disk::PageStore& store, std::uint64_t memory_bytes, FunctionRef<void(PageId)> on_read)
    : store_(store), on_read_(on_read) {
  const std::uint64_t chunks = std::clamp<std::uint64_t>(memory_bytes / (kChunkPages * kPageBytes), 2, kMostChunks);
  for (std::uint64_t i = 0; i < chunks; ++i) free_.push_back(&chunks_.emplace_back());
}

ReadAhead::~ReadAhead() { fibers_.wait(); }

void ReadAhead::expect(std::span<const PageId> pages) {
  for (const PageId page : pages) {
    if (waiting_.size() >= kMostWanted) break;
    if (places_.contains(page.value) || !waiting_.insert(page.value).second) continue;
    wanted_.push_back(page);
  }
  start_reads();
}

void ReadAhead::start_reads() {
  while (!free_.empty() && !wanted_.empty()) {
    Chunk& chunk = *free_.back();
    chunk.pages.clear();
    while (!wanted_.empty() && chunk.pages.size() < kChunkPages) {
      if (waiting_.erase(wanted_.front().value) != 0) chunk.pages.push_back(wanted_.front());
      wanted_.pop_front();
    }
    if (chunk.pages.empty()) return;
    free_.pop_back();
    start(chunk);
  }
}

void ReadAhead::start(Chunk& chunk) {
  std::ranges::sort(chunk.pages);  // neighbours become one request
  chunk.status.assign(chunk.pages.size(), Result<>());
  chunk.left = chunk.pages.size();
  for (std::size_t i = 0; i < chunk.pages.size(); ++i) places_[chunk.pages[i].value] = {&chunk, i};
  used_.push_back(&chunk);
  chunk.reading.add();
  const auto spawned = runtime::spawn_counted(runtime::Core::current(), fibers_, [this, &chunk] { fetch(chunk); }, {.name = "read ahead"});
  if (!spawned) fetch(chunk);  // no memory for a fiber: without it then
}

void ReadAhead::fetch(Chunk& chunk) {
  store_.read_runs(chunk.pages, chunk.memory.data(), chunk.status);
  for (std::size_t i = 0; i < chunk.pages.size(); ++i) {
    if (chunk.status[i]) on_read_(chunk.pages[i]);
  }
  chunk.reading.done();
}

Result<> ReadAhead::take(Place place, PageId page, std::byte* into) {
  Chunk& chunk = *place.chunk;
  chunk.reading.wait();
  Result<> status = std::move(chunk.status[place.index]);
  if (status) std::memcpy(into, chunk.memory.data() + place.index * kPageBytes, kPageBytes);
  places_.erase(page.value);
  if (--chunk.left == 0) {
    used_.erase(std::ranges::find(used_, &chunk));
    free_.push_back(&chunk);
    start_reads();
  }
  return status;
}

// Of a chunk whose turn does not come: the hints were wrong.
void ReadAhead::drop_oldest() {
  if (!free_.empty() || used_.empty()) return;
  Chunk& chunk = *used_.front();
  used_.pop_front();
  chunk.reading.wait();
  for (std::size_t i = 0; i < chunk.pages.size(); ++i) {
    const auto found = places_.find(chunk.pages[i].value);
    if (found != places_.end() && found->second.chunk == &chunk) places_.erase(found);
  }
  free_.push_back(&chunk);
}

Result<> ReadAhead::read(PageId page, std::byte* into) {
  if (const auto found = places_.find(page.value); found != places_.end()) return take(found->second, page, into);
  if (waiting_.contains(page.value)) {
    drop_oldest();
    start_reads();
    if (const auto found = places_.find(page.value); found != places_.end()) return take(found->second, page, into);
    waiting_.erase(page.value);
  }
  TRY(store_.read(page, one_.data()));
  on_read_(page);
  std::memcpy(into, one_.data(), kPageBytes);
  return {};
}

}  // namespace kelda::engine
