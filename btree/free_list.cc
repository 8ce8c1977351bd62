#include "btree/free_list.h"

#include "btree/drop.h"
#include "btree/space_map.h"
#include "common/planted_bug.h"

namespace kelda::btree {

namespace {

constexpr std::size_t kRunBytes = 12;
constexpr std::size_t kRunsPerEntry = 60;
// The pages of one entry lie on few space maps, so that freeing them is one record.
static_assert(kRunsPerEntry * kRunBytes <= kMaxInlineBytes);

struct EntryKey {
  std::array<std::byte, 12> bytes;
  EntryKey(TxnId txn, std::uint32_t number) {
    const std::uint64_t id = __builtin_bswap64(txn.value);
    const std::uint32_t n = __builtin_bswap32(number);
    std::memcpy(bytes.data(), &id, 8);
    std::memcpy(bytes.data() + 8, &n, 4);
  }
};

TreeRef list_of(const TreeEnv& env) { return {env, kFreeListTree, kFreeListRoot}; }

Result<bool> list_exists(const TreeEnv& env) {
  auto map = bufferpool::SharedGuard::take(env.pool, map_of(kFreeListRoot));
  if (map.failed_with(Code::kNotFound)) return false;
  if (!map) return std::move(map).error();
  return is_space_map(map->data()) && test_bit(map->data(), bit_of(kFreeListRoot));
}

Result<std::vector<PageId>> decode_pages(const TreeEnv& env, Bytes value) {
  Reader in(value);
  std::vector<PageId> pages;
  while (!in.at_end()) {
    const auto first = in.number<std::uint64_t>();
    const auto count = in.number<std::uint32_t>();
    if (!in.ok() || first == 0 || first + count > env.space.page_count()) {
      return Error(Code::kCorrupt, "the list of pages to free is damaged");
    }
    for (std::uint32_t i = 0; i < count; ++i) pages.push_back(PageId(first + i));
  }
  return pages;
}

// One step: removes the entry and frees its pages. Entries of one transaction are worked off by one fiber.
Result<> work_off(const TreeEnv& env, Bytes key, std::span<const PageId> pages) {
  SpaceStep space(env.pool, pages, false);
  for (unsigned attempt = 0;; ++attempt) {
    auto reservation = TRY(env.log.reserve(nullptr, 64 + space.payload_bytes() + space.map_count() * wal::kChangeOverheadBytes,
                                           1, true));
    TRY(space.prepare());
    Path path;
    const Walk walk = descend_to(env, kFreeListTree, kFreeListRoot, 0, key, path);
    if (walk == Walk::kFailed) return std::move(path.error);
    if (walk == Walk::kRestart || !try_latch(env, path.node)) {
      after_restart(attempt);
      continue;
    }
    auto leaf = bufferpool::ExclusiveGuard::adopt(env.pool, path.node.page);
    const Position at = lower_bound(NodeView(leaf.data()), key);
    if (!at.exact) return {};
    if (!TRY(space.try_latch())) continue;
    Writer<2> slot;
    slot.number(static_cast<std::uint16_t>(at.slot));
    std::vector<wal::PageChange> changes{{leaf.page(), static_cast<std::uint8_t>(PageOp::kRemoveCell), slot.bytes(), {}, {}}};
    space.add_to(changes);
    const Lsn lsn = env.log.append(reservation, nullptr,
                                   {.changes = changes, .undo = {}, .undo_next = {}, .count = {kFreeListTree, -1}});
    remove_cell(leaf.data(), at.slot);
    leaf.mark_dirty(lsn);
    space.finish(lsn);
    break;
  }
  env.space.freed(pages);
  return merge_for(list_of(env), key, kUndoing);
}

}  // namespace

Result<> list_frees(const TreeEnv& env, TreeTxn& txn, std::span<const PageId> pages) {
  TRY(BTree::ensure_at(env, kFreeListTree, kFreeListRoot));
  std::uint32_t number = 0;
  for (std::size_t i = 0; i < pages.size();) {
    Writer<kRunsPerEntry * kRunBytes> value;
    std::size_t page_count = 0;
    for (std::size_t runs = 0; runs < kRunsPerEntry && i < pages.size() && page_count < disk::kPagesPerSpaceMap; ++runs) {
      std::size_t end = i + 1;
      while (end < pages.size() && pages[end].value == pages[end - 1].value + 1) ++end;
      value.number(pages[i].value);
      value.number(static_cast<std::uint32_t>(end - i));
      page_count += end - i;
      i = end;
    }
    const EntryKey key(txn.log.id, number++);
    const LeafChange change{.key = key.bytes, .word = static_cast<std::uint16_t>(value.bytes().size()), .value = value.bytes()};
    (void)TRY(change_leaf(list_of(env), txn.log, change, {Space::Use::kReserve, false}));
  }
  return {};
}

Result<> work_off_frees(const TreeEnv& env, TxnId txn) {
  BTree list(env, kFreeListTree, kFreeListRoot);
  const EntryKey first(txn, 0);
  for (;;) {
    Cursor cursor(list);
    if (!TRY(cursor.seek(first.bytes))) return {};
    const std::string key(as_view(cursor.key()));
    if (txn != kNoTxn && std::memcmp(key.data(), first.bytes.data(), 8) != 0) return {};
    const std::vector<PageId> pages = TRY(decode_pages(env, TRY(cursor.value())));
    TRY(work_off(env, as_bytes(key), pages));
  }
}

Result<> check_free_list(const TreeEnv& env, FunctionRef<void(PageId)> visit) {
  if (!TRY(list_exists(env))) return {};
  BTree list(env, kFreeListTree, kFreeListRoot);
  TRY(list.check(visit));
  Cursor cursor(list);
  for (bool more = TRY(cursor.seek({})); more; more = TRY(cursor.next())) {
    for (const PageId page : TRY(decode_pages(env, TRY(cursor.value())))) visit(page);
  }
  return {};
}

Result<> finish_frees(TreeEnv env) {
  if (planted(Bug::kFreesNotFinished)) return {};
  if (!TRY(list_exists(env))) return {};
  return work_off_frees(env, kNoTxn);
}

}  // namespace kelda::btree
