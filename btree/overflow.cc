#include "btree/overflow.h"

#include <algorithm>
#include <cstring>

#include "btree/descent.h"
#include "btree/ops.h"
#include "btree/space.h"
#include "bufferpool/pool_inline.h"

namespace kelda::btree {

namespace {

using bufferpool::ExclusiveGuard;
using bufferpool::SharedGuard;
using disk::PageType;

constexpr std::size_t kPagesPerRecord = 8;
constexpr std::size_t kImageFrom = offsetof(disk::PageHeader, type);
constexpr std::uint64_t kReserveBytes = kPagesPerRecord * (kPageBytes + 64);
static_assert(kReserveBytes + 512 <= wal::kMaxReserveBytes);

struct PagePart {
  PageId page;
  PageType type;
  std::uint32_t part, bytes;
  Bytes content;
};

void fill_page(std::byte* data, const PagePart& part, std::uint64_t stamp) {
  std::memset(data + kImageFrom, 0, kPageBytes - kImageFrom);
  OverflowHeader& h = *reinterpret_cast<OverflowHeader*>(data);
  h.page.type = static_cast<std::uint8_t>(part.type);
  h.stamp = stamp;
  h.part = part.part;
  h.bytes = part.bytes;
  std::memcpy(data + sizeof h, part.content.data(), part.content.size());
}

// One step: takes the pages into use and writes them, with "free them" as undo.
Result<> write_parts(const TreeEnv& env, TreeTxn& txn, std::span<const PagePart> parts, std::uint64_t stamp) {
  std::vector<PageId> pages;
  for (const PagePart& part : parts) pages.push_back(part.page);
  Writer<1 + kPagesPerRecord * 20> undo;
  undo.number(UndoKind::kAllocated);
  for (std::size_t begin = 0, end; begin < pages.size(); begin = end) {
    for (end = begin + 1; end < pages.size() && pages[end].value == pages[end - 1].value + 1;) ++end;
    undo.varint(pages[begin].value);
    undo.varint(end - begin);
  }
  SpaceStep space(env.pool, pages, true);
  for (unsigned attempt = 0;; ++attempt) {
    auto reservation = TRY(env.log.reserve(&txn.log, kReserveBytes + undo.bytes().size()));
    TRY(space.prepare());
    TRY(env.pool.reserve_frames(parts.size()));
    // The map first, though it comes last in the latch order: nobody else can want the fresh pages, and only one fiber a
    // map then holds several frames while it waits for more.
    if (!TRY(space.try_latch())) {
      after_restart(attempt);
      continue;
    }
    std::vector<ExclusiveGuard> guards;
    for (const PagePart& part : parts) guards.push_back(TRY(ExclusiveGuard::take_fresh(env.pool, part.page)));
    std::vector<wal::PageChange> changes;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      fill_page(guards[i].data(), parts[i], stamp);
      const Bytes image{guards[i].data() + kImageFrom, sizeof(OverflowHeader) - kImageFrom + parts[i].content.size()};
      changes.push_back({parts[i].page, static_cast<std::uint8_t>(PageOp::kOverflow), image, {}, {}});
    }
    space.add_to(changes);
    const Lsn lsn = env.log.append(reservation, &txn.log, {.changes = changes, .undo = undo.bytes(), .undo_next = {}, .count = {}});
    space.finish(lsn);
    for (ExclusiveGuard& guard : guards) guard.mark_dirty(lsn);
    return {};
  }
}

std::vector<PagePart> cut(Bytes value, std::span<const PageId> pages, std::vector<std::uint64_t>& ids) {
  std::vector<PagePart> parts;
  for (std::uint32_t i = 0; i * kOverflowPageBytes < value.size(); ++i) {
    const Bytes rest = value.subspan(i * kOverflowPageBytes);
    const Bytes content = rest.first(std::min(rest.size(), kOverflowPageBytes));
    parts.push_back({pages[i], PageType::kOverflowData, i, static_cast<std::uint32_t>(content.size()), content});
    ids.push_back(pages[i].value);
  }
  if (parts.size() > 1) {
    const Bytes content{reinterpret_cast<const std::byte*>(ids.data()), ids.size() * sizeof ids[0]};
    parts.push_back({pages.back(), PageType::kOverflowIndex, static_cast<std::uint32_t>(value.size()),
                     static_cast<std::uint32_t>(ids.size()), content});
  }
  return parts;
}

// Runs `use` on the page's content under a shared latch, if it is what the reference promises.
template <class Use>
Result<> with_page(const TreeEnv& env, PageId page, PageType type, std::uint64_t stamp, std::uint32_t part,
                   std::uint32_t bytes, Use use) {
  auto guard = SharedGuard::take(env.pool, page);
  // A page that was freed and given back to the device does not verify any more: the caller finds out by the leaf.
  if (guard.failed_with(Code::kCorrupt) || guard.failed_with(Code::kNotFound)) return Code::kRestart;
  if (!guard) return std::move(guard).error();
  const OverflowHeader& h = *reinterpret_cast<const OverflowHeader*>(guard->data());
  if (h.page.type != static_cast<std::uint8_t>(type) || h.stamp != stamp || h.part != part || h.bytes != bytes) {
    return Code::kRestart;
  }
  use(guard->data() + sizeof h);
  return {};
}

// The data pages, in order of the value.
Result<std::vector<PageId>> data_pages(const TreeEnv& env, const OverflowRef& ref) {
  if (!ref.has_index()) return std::vector{ref.page};
  const auto count = static_cast<std::uint32_t>(ref.data_page_count());
  std::vector<PageId> pages(count);
  TRY(with_page(env, ref.page, PageType::kOverflowIndex, ref.stamp, ref.value_bytes, count, [&](const std::byte* content) {
    std::memcpy(pages.data(), content, count * sizeof(PageId));
  }));
  for (const PageId page : pages) {
    if (page == kNoPage || page.value >= env.space.page_count()) return Code::kRestart;
  }
  return pages;
}

}  // namespace

OverflowRef OverflowRef::decode(Bytes bytes) {
  Reader in(bytes);
  OverflowRef ref;
  ref.value_bytes = in.number<std::uint32_t>();
  ref.page = PageId(in.number<std::uint64_t>());
  ref.stamp = in.number<std::uint64_t>();
  return ref;
}

OverflowRef OverflowRef::decode_racy(Bytes bytes) {
  std::array<std::byte, kBytes> copy{};
  bufferpool::racy_copy(copy.data(), bytes.data(), std::min(bytes.size(), copy.size()));
  return decode(copy);
}

std::array<std::byte, OverflowRef::kBytes> OverflowRef::encode() const {
  std::array<std::byte, kBytes> bytes;
  std::memcpy(bytes.data(), &value_bytes, 4);
  std::memcpy(bytes.data() + 4, &page.value, 8);
  std::memcpy(bytes.data() + 12, &stamp, 8);
  return bytes;
}

bool OverflowRef::plausible(std::uint64_t page_count) const {
  return value_bytes > 0 && value_bytes <= kMaxValueBytes && page != kNoPage && page.value < page_count;
}

Result<OverflowRef> write_overflow(const TreeEnv& env, TreeTxn& txn, Bytes value) {
  OverflowRef ref{static_cast<std::uint32_t>(value.size()), kNoPage, 0};
  const auto page_count = static_cast<std::uint32_t>(ref.data_page_count() + ref.has_index());
  const std::vector<PageId> pages = TRY(env.space.allocate_run(page_count));
  ref.page = pages.back();
  ref.stamp = env.log.next().value;
  std::vector<std::uint64_t> ids;
  const std::vector<PagePart> parts = cut(value, pages, ids);
  for (std::size_t done = 0; done < parts.size();) {
    const std::size_t count = std::min(kPagesPerRecord, parts.size() - done);
    const auto written = write_parts(env, txn, std::span(parts).subspan(done, count), ref.stamp);
    if (!written) {
      for (std::size_t i = 0; i < done; ++i) {
        txn.free_at_commit.push_back({.page = pages[i], .page_count = 1, .undo_count = txn.log.undo.size()});
      }
      env.space.cancel(std::span(pages).subspan(done));
      return written.error();
    }
    done += count;
  }
  return ref;
}

Result<> read_overflow(const TreeEnv& env, const OverflowRef& ref, std::string& value) {
  const std::vector<PageId> pages = TRY(data_pages(env, ref));
  constexpr std::size_t kAhead = bufferpool::BufferPool::kMaxPrefetch;
  if (pages.size() > 1) env.pool.prefetch(pages);
  value.resize(ref.value_bytes);
  std::size_t at = 0;
  for (std::uint32_t i = 0; i < pages.size(); ++i) {
    // A long value: the next part is on its way while this one is copied.
    if (i % kAhead == 0 && i + kAhead < pages.size()) env.pool.prefetch(std::span(pages).subspan(i + kAhead));
    const auto bytes = static_cast<std::uint32_t>(std::min(kOverflowPageBytes, value.size() - at));
    TRY(with_page(env, pages[i], PageType::kOverflowData, ref.stamp, i, bytes,
                  [&](const std::byte* content) { std::memcpy(value.data() + at, content, bytes); }));
    at += bytes;
  }
  return {};
}

Result<std::vector<PageId>> overflow_pages(const TreeEnv& env, const OverflowRef& ref) {
  std::vector<PageId> pages = TRY(data_pages(env, ref));
  if (ref.has_index()) pages.push_back(ref.page);
  std::sort(pages.begin(), pages.end());
  return pages;
}

}  // namespace kelda::btree
