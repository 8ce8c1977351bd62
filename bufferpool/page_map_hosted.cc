// Linux: the region is anonymous memory without reservation. Touching a page gives it memory; MADV_DONTNEED takes it
// away and makes every core forget it before it returns, so that an epoch has passed as soon as it is asked for. While a
// page is in limbo its memory is simply still there.
#include <sys/mman.h>

#include <algorithm>
#include <vector>

#include "bufferpool/lazy_array.h"
#include "bufferpool/page_map.h"
#include "common/assert.h"

namespace kelda::bufferpool {
namespace {

class HostedPageMap final : public PageMap {
 public:
  HostedPageMap(std::byte* base, std::uint64_t size_bytes) : base_(base), size_bytes_(size_bytes) {}
  ~HostedPageMap() override { unmap_lazily(base_, size_bytes_); }

  std::byte* base() const override { return base_; }
  std::byte* frame_address(PageId page, FrameId) override { return base_ + page.value * kPageBytes; }
  Result<> map(PageId, FrameId) override { return {}; }
  Epoch unmap(std::span<const PageId>) override { return 0; }
  bool passed(Epoch) override { return true; }
  void restore(PageId) override {}

  // One call for each run of adjacent pages.
  void release(std::span<const PageId> pages) override {
    std::vector<PageId> sorted(pages.begin(), pages.end());
    std::ranges::sort(sorted);
    for (std::size_t i = 0; i < sorted.size();) {
      std::size_t end = i + 1;
      while (end < sorted.size() && sorted[end].value == sorted[i].value + (end - i)) ++end;
      const int failed = madvise(base_ + sorted[i].value * kPageBytes, (end - i) * kPageBytes, MADV_DONTNEED);
      KELDA_ASSERT(failed == 0);
      i = end;
    }
  }

  bool has_reference_bits() const override { return false; }
  void take_references(std::span<const PageId>, std::span<bool>) override { KELDA_ASSERT(false); }
  void references_taken() override {}

 private:
  std::byte* base_;
  std::uint64_t size_bytes_;
};

}  // namespace

Result<std::unique_ptr<PageMap>> make_hosted_page_map(std::uint64_t page_count) {
  const std::uint64_t size_bytes = page_count * kPageBytes;
  std::byte* base = TRY(map_lazily(size_bytes));
  // A huge page would give memory to 511 neighbours. Kernels without huge pages refuse: just as well.
  (void)madvise(base, size_bytes, MADV_NOHUGEPAGE);
  return std::make_unique<HostedPageMap>(base, size_bytes);
}

}  // namespace kelda::bufferpool
