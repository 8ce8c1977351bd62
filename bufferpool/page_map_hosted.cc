// Linux: the region is anonymous memory without reservation. Touching a page gives it memory; MADV_DONTNEED takes it
// away and makes every core forget it before it returns, so that an epoch has passed as soon as it is asked for. While a
// page is in limbo its memory is simply still there.
//
// Each madvise() interrupts every core that runs a thread of this process. process_madvise() takes a list of ranges and
// interrupts once. On the caller's own memory it takes MADV_DONTNEED from Linux 6.13 on, and needs no descriptor from
// 6.14 on. Where it refuses (asked once, at the start) every run of adjacent pages costs a call.
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "bufferpool/lazy_array.h"
#include "bufferpool/page_map.h"
#include "common/assert.h"

namespace kelda::bufferpool {
namespace {

constexpr std::size_t kMaxRanges = 1024;  // a call; UIO_MAXIOV
// PIDFD_SELF_THREAD_GROUP: the calling process, a child after fork() included. Older headers do not have it.
constexpr int kOwnProcess = -10001;

long forget_ranges(std::span<const iovec> ranges) {
  return syscall(SYS_process_madvise, kOwnProcess, ranges.data(), ranges.size(), MADV_DONTNEED, 0U);
}

class HostedPageMap final : public PageMap {
 public:
  // `batched`: process_madvise() does what release() needs.
  HostedPageMap(std::byte* base, std::uint64_t size_bytes, bool batched)
      : base_(base), size_bytes_(size_bytes), batched_(batched) {}
  ~HostedPageMap() override { unmap_lazily(base_, size_bytes_); }

  std::byte* base() const override { return base_; }
  std::byte* frame_address(PageId page, FrameId) override { return base_ + page.value * kPageBytes; }
  Result<> map(PageId, FrameId) override { return {}; }
  Epoch unmap(std::span<const PageId>) override { return 0; }
  bool passed(Epoch) override { return true; }
  void restore(PageId) override {}

  // One range for each run of adjacent pages.
  void release(std::span<const PageId> pages) override {
    std::vector<PageId> sorted(pages.begin(), pages.end());
    std::ranges::sort(sorted);
    std::vector<iovec> ranges;
    ranges.reserve(sorted.size());
    for (std::size_t i = 0; i < sorted.size();) {
      std::size_t end = i + 1;
      while (end < sorted.size() && sorted[end].value == sorted[i].value + (end - i)) ++end;
      ranges.push_back({base_ + sorted[i].value * kPageBytes, (end - i) * kPageBytes});
      i = end;
    }
    const std::size_t done = batched_ && ranges.size() > 1 ? release_batched(ranges) : 0;
    for (const iovec& range : std::span(ranges).subspan(done)) {
      const int failed = madvise(range.iov_base, range.iov_len, MADV_DONTNEED);
      KELDA_ASSERT(failed == 0);
    }
  }

  bool has_reference_bits() const override { return false; }
  void take_references(std::span<const PageId>, std::span<bool>) override { KELDA_ASSERT(false); }
  void references_taken() override {}

 private:
  // Returns how many leading ranges are done whole. The call may stop early, also within a range (it says how many bytes
  // it has done), or be interrupted; doing a range again does no harm.
  static std::size_t release_batched(std::span<const iovec> ranges) {
    std::size_t done = 0;
    while (done < ranges.size()) {
      long bytes = forget_ranges(ranges.subspan(done, std::min(kMaxRanges, ranges.size() - done)));
      if (bytes < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      const std::size_t before = done;
      while (bytes > 0 && done < ranges.size() && std::size_t(bytes) >= ranges[done].iov_len) {
        bytes -= static_cast<long>(ranges[done++].iov_len);
      }
      if (done == before) break;  // refused, by a filter that was installed since: the rest goes one by one
    }
    return done;
  }

  std::byte* base_;
  std::uint64_t size_bytes_;
  const bool batched_;
};

// Asks for the very thing: two pages written, both forgotten in one call.
bool can_forget_in_batches(std::byte* region, std::uint64_t size_bytes) {
  if (size_bytes < 3 * kPageBytes) return false;
  std::byte* const pages[] = {region, region + 2 * kPageBytes};
  std::vector<iovec> ranges;
  for (std::byte* page : pages) {
    *page = std::byte{1};
    ranges.push_back({page, kPageBytes});
  }
  const bool can = forget_ranges(ranges) == 2 * static_cast<long>(kPageBytes) && *pages[0] == std::byte{} && *pages[1] == std::byte{};
  for (std::byte* page : pages) KELDA_ASSERT(madvise(page, kPageBytes, MADV_DONTNEED) == 0);
  return can;
}

}  // namespace

Result<std::unique_ptr<PageMap>> make_hosted_page_map(std::uint64_t page_count) {
  const std::uint64_t size_bytes = page_count * kPageBytes;
  std::byte* base = TRY(map_lazily(size_bytes));
  // A huge page would give memory to 511 neighbours. Kernels without huge pages refuse: just as well.
  (void)madvise(base, size_bytes, MADV_NOHUGEPAGE);
  return std::make_unique<HostedPageMap>(base, size_bytes, can_forget_in_batches(base, size_bytes));
}

}  // namespace kelda::bufferpool
