// Reads pages of a store with many requests in flight, ahead of a single fiber that wants them about in the order told.
//
// Contract: a fixed number of pages is held. read() never fails because of that: what was not read ahead is read then.
// All calls come from one fiber; the reads run in fibers of its core. The store outlives this object.
#pragma once

#include <deque>
#include <list>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "btree/page_source.h"
#include "common/function_ref.h"
#include "disk/aligned_buffer.h"
#include "disk/page_store.h"
#include "runtime/sync.h"

namespace kelda::engine {

class ReadAhead final : public btree::PageSource {
 public:
  // Takes about `memory_bytes`. `on_read` is told each page that was read and verified.
  ReadAhead(disk::PageStore& store, std::uint64_t memory_bytes, FunctionRef<void(PageId)> on_read);
  ~ReadAhead() override;  // waits for what is being read

  Result<> read(PageId page, std::byte* into) override;
  void expect(std::span<const PageId> pages) override;

 private:
  static constexpr std::size_t kChunkPages = 64;
  // Pages that are read together.
  struct Chunk {
    disk::AlignedBuffer memory{kChunkPages * kPageBytes};
    std::vector<PageId> pages;
    std::vector<Result<>> status;
    std::size_t left = 0;  // not asked for yet
    runtime::Completion reading;
  };
  struct Place {
    Chunk* chunk;
    std::size_t index;
  };

  void start_reads();
  void start(Chunk& chunk);
  void fetch(Chunk& chunk);
  Result<> take(Place place, PageId page, std::byte* into);
  void drop_oldest();

  disk::PageStore& store_;
  FunctionRef<void(PageId)> on_read_;
  std::list<Chunk> chunks_;
  std::vector<Chunk*> free_;
  std::deque<Chunk*> used_;  // in the order of their start
  std::unordered_map<std::uint64_t, Place> places_;
  std::deque<PageId> wanted_;
  std::unordered_set<std::uint64_t> waiting_;  // those of wanted_ that nobody has read meanwhile
  disk::AlignedBuffer one_{kPageBytes};
  runtime::Completion fibers_;
};

}  // namespace kelda::engine
