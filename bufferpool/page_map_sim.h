// A page map in an array, for tests: epochs pass only when the test says so, and content that may no longer be read is
// overwritten, so that a reader who relied on it is found out.
#pragma once

#include <atomic>
#include <vector>

#include "bufferpool/lazy_array.h"
#include "bufferpool/page_map.h"

namespace kelda::bufferpool {

class SimulatedPageMap final : public PageMap {
 public:
  static constexpr std::byte kPoison{0xdd};
  static Result<std::unique_ptr<SimulatedPageMap>> create(std::uint64_t page_count, bool reference_bits);

  // False: frames stay in limbo until it is true again.
  void let_epochs_pass(bool pass) { pass_.store(pass); }
  // What the processor would do at a read.
  void set_reference(PageId page) { referenced_[page.value].store(1); }
  // The next calls of map() find no memory for their entry.
  void refuse_maps(std::uint64_t count) { refuse_.store(count); }
  std::uint64_t mapped_count() const { return mapped_.load(); }

  std::byte* base() const override { return memory_.data(); }
  std::byte* frame_address(PageId page, FrameId) override { return memory_.data() + page.value * kPageBytes; }
  Result<> map(PageId page, FrameId frame) override;
  Epoch unmap(std::span<const PageId> pages) override;
  bool passed(Epoch epoch) override;
  void restore(PageId page) override;
  void release(std::span<const PageId> pages) override;
  bool has_reference_bits() const override { return reference_bits_; }
  void take_references(std::span<const PageId> pages, std::span<bool> referenced) override;
  void references_taken() override {}

 private:
  enum State : std::uint8_t { kNothing, kMapped, kInLimbo };
  void change(PageId page, State from, State to);

  LazyArray<std::byte> memory_;
  LazyArray<std::atomic<std::uint8_t>> states_, referenced_;
  std::atomic<std::uint64_t> epoch_{0}, passed_{0}, mapped_{0};
  std::atomic<std::uint64_t> refuse_{0};
  std::atomic<bool> pass_{true};
  bool reference_bits_ = false;
};

}  // namespace kelda::bufferpool
