#include "btree_harness.h"

#include "btree/sound_pages.h"

namespace kelda::btree {

Result<std::unique_ptr<Db>> Db::open(blockdev::BlockDevice& device, const DbOptions& options) {
  auto db = std::make_unique<Db>(device, TRY(disk::Superblock::read(device)));
  const disk::Layout& layout = db->superblock.layout();
  db->store = only_sound_pages(disk::make_double_write_store(device, layout));
  TRY(db->store->repair());
  db->pool = TRY(bufferpool::BufferPool::create({.frame_count = options.frames, .page_count = layout.page_count}, *db->store));
  db->log = TRY(wal::Log::create(device, db->superblock, *db->pool, {}));
  db->pool->set_write_barrier(*db->log);
  db->space = TRY(Space::create(*db->pool, *db->log, layout));
  db->recovery = std::make_unique<TreeRecovery>(db->env());
  db->report = TRY(db->log->recover(*db->recovery));
  TRY(db->space->load());
  TRY(finish_frees(db->env()));
  TRY(BTree::ensure_at(db->env(), kTestTree, kTestRoot));
  return db;
}

Result<BTree::CheckReport> Db::check(std::vector<BTree> more) {
  std::vector<unsigned> seen(space->page_count());
  const auto visit = [&](PageId page) { ++seen[page.value]; };
  const auto report_of_tree = TRY(tree().check(visit));
  for (BTree& other : more) TRY(other.check(visit));
  for (std::size_t p = 0; p < seen.size(); ++p) {
    if (seen[p] > 1) return Error(Code::kCorrupt, "page " + std::to_string(p) + " is used twice");
  }
  TRY(check_space(env(), [&](PageId page) { return seen[page.value] != 0; }));
  pool->check_invariants();
  return report_of_tree;
}

Result<std::map<std::string, std::string>> Db::contents() {
  std::map<std::string, std::string> all;
  BTree t = tree();
  Cursor cursor(t);
  for (bool more = TRY(cursor.seek({})); more; more = TRY(cursor.next())) {
    all.emplace(as_view(cursor.key()), as_view(TRY(cursor.value())));
  }
  return all;
}

std::unique_ptr<blockdev::MemoryDevice> new_disk(std::uint64_t size_bytes, std::uint64_t log_bytes) {
  auto device = std::make_unique<blockdev::MemoryDevice>(blockdev::MemoryOptions{.size_bytes = size_bytes, .name = "test"});
  const auto formatted = disk::Superblock::format(*device, {.log_bytes = log_bytes});
  EXPECT_TRUE(formatted.has_value()) << formatted.error().to_string();
  return device;
}

std::string random_key(std::mt19937_64& random, unsigned spread) {
  const unsigned n = static_cast<unsigned>(random() % spread);
  switch (random() % 4) {
    case 0: return std::to_string(n);
    case 1: return "user:" + std::string(6 - std::min<std::size_t>(6, std::to_string(n).size()), '0') + std::to_string(n);
    case 2: return std::string(1 + n % 900, static_cast<char>('a' + n % 3)) + std::to_string(n % 100);
    default: return std::string(n % 7, '\0') + static_cast<char>(n % 256) + std::string(n % 5, '\xff');
  }
}

std::string random_value(std::mt19937_64& random, std::size_t max_value_bytes) {
  std::size_t bytes = random() % 150;
  if (random() % 8 == 0) bytes = random() % 1200;
  if (random() % 24 == 0) bytes = random() % (max_value_bytes + 1);
  bytes = std::min(bytes, max_value_bytes);
  std::string value(bytes, static_cast<char>('A' + random() % 26));
  if (bytes > 8) std::snprintf(value.data(), 8, "%07x", static_cast<unsigned>(random() & 0xfffffff));
  return value;
}

}  // namespace kelda::btree
