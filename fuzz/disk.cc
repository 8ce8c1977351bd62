// A whole disk with damage behind valid checksums: checking it, opening it, using it and closing it end in answers or in
// errors, within a bounded time.
#include "common/assert.h"
#include "engine/check.h"
#include "engine/database_impl.h"
#include "fuzz/disk_images.h"
#include "fuzz/fuzz_target.h"

namespace kelda::fuzz {

namespace {

constexpr std::uint64_t kMemoryBytes = 16_MiB;

// Anything may fail on a damaged disk; it is enough that it says so.
void use(Database& db, Input& input) {
  std::string value;
  const auto names = db.tree_names();
  if (!names) return;
  for (const std::string& name : *names) {
    const auto tree = db.tree(name, false);
    if (!tree) continue;
    auto txn = db.begin();
    if (auto scan = txn->scan(*tree)) {
      bool more = (*scan)->seek("").value_or(false);
      for (unsigned i = 0; i < 3000 && more; ++i) more = (*scan)->next().value_or(false);
    }
    for (unsigned i = 0; i < 20; ++i) {
      const std::string key = "user:" + std::to_string(input.below(1000));
      (void)txn->get(*tree, key, value);
      if (!txn->put(*tree, key, std::string(i % 5 == 0 ? 6000 : 300, 'n'))) break;
      if (i % 3 == 0 && !txn->remove(*tree, "user:" + std::to_string(input.below(1000)))) break;
    }
    (void)(input.byte() % 2 == 0 ? txn->commit() : txn->roll_back());
  }
  if (!names->empty() && input.byte() % 4 == 0) (void)db.drop_tree(names->front());
  (void)db.checkpoint();
  (void)db.close();
}

void run(Bytes bytes) {
  Input input(bytes);
  auto disk = copy_disk(input.byte() % 2 == 0 ? DiskState::kClean : DiskState::kCrashed);
  damage_disk(*disk, input, 1 + input.byte() % 6);
  {
    const auto checked = engine::check_disk(disk->crash(blockdev::Survival::kAll), {.memory_bytes = kMemoryBytes},
                                            [](std::uint64_t, std::uint64_t) {});
    KELDA_ASSERT(!checked || checked->problems.size() <= 110);
  }
  OpenReport report;
  auto db = engine::DatabaseImpl::open(disk->crash(blockdev::Survival::kAll), {.memory_bytes = kMemoryBytes}, report,
                                       engine::DatabaseImpl::Purpose::kInspect);
  if (db) use(**db, input);
}

}  // namespace

const FuzzTarget kDisk = {"disk", run};

}  // namespace kelda::fuzz
