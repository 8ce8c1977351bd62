// Opening a database: the disk, the layers on it, recovery, the catalog.
#include <algorithm>

#include "btree/sound_pages.h"
#include "engine/database_impl.h"

namespace kelda::engine {

Result<MemoryPlan> plan_memory(std::uint64_t memory_bytes) {
  MemoryPlan plan;
  const bool small = memory_bytes < 96_MiB;
  plan.lock_buckets_log2 = small ? 14 : 16;
  plan.log_buffer_count = small ? 2 : 4;
  plan.log_buffer_bytes = small ? 1_MiB : 2_MiB;
  // Buckets are 16 bytes; the log stages a batch as large as one buffer twice over.
  const std::uint64_t fixed_bytes =
      (std::uint64_t{16} << plan.lock_buckets_log2) + (plan.log_buffer_count + 2) * plan.log_buffer_bytes + 1_MiB;
  const std::uint64_t least_bytes = fixed_bytes + bufferpool::BufferPool::kMinFrames * kPageBytes;
  if (memory_bytes < least_bytes) {
    return Error(Code::kTooSmall, "the engine needs at least " + std::to_string(round_up(least_bytes, 1_MiB) >> 20) +
                                      " MiB of memory, it was given " + std::to_string(memory_bytes >> 20) +
                                      " MiB: give it more (--memory)");
  }
  plan.pool_frames = (memory_bytes - fixed_bytes) / kPageBytes;
  return plan;
}

Result<> DatabaseImpl::attach_disk(const DatabaseOptions& options, OpenReport& report) {
  const auto& info = device_->info();
  if (options.durability == DurabilityMode::kFlush && !info.has_flush) {
    return Error(Code::kNoFlush, info.name + " cannot make writes durable (it offers no flush): use another disk or "
                                             "accept to lose acknowledged commits with --durability=none");
  }
  Result<disk::Superblock> superblock =
      options.force_create ? disk::Superblock::format(*device_, {.force = true}) : disk::Superblock::read(*device_);
  report.created = options.force_create;
  if (superblock.failed_with(Code::kBlankDisk) && options.create_if_blank) {
    superblock = disk::Superblock::format(*device_, {});
    report.created = true;
  }
  if (!superblock) return disk::advise_to_format(std::move(superblock).error());
  superblock_.emplace(std::move(*superblock));
  return {};
}

// Before recovery: what the log says does not depend on where the pages end. After the pool was made: a device of a size
// that this machine has no address space for keeps its old superblock.
Result<> DatabaseImpl::grow_disk(const disk::Layout& layout, OpenReport& report) {
  const disk::Layout& old = superblock_->layout();
  if (layout.page_count == old.page_count) return {};
  const std::uint64_t old_bytes = old.device_bytes;
  if (Result<> grown = superblock_->grow(*device_, layout); !grown) {
    return std::move(grown).error().with_context("taking the new space of an enlarged disk into use");
  }
  report.grown_from_bytes = old_bytes;
  return {};
}

Result<> DatabaseImpl::build_layers(const DatabaseOptions& options, const disk::Layout layout, MakePageMap make_page_map,
                                    OpenReport& report) {
  store_ = btree::only_sound_pages(disk::make_double_write_store(*device_, layout));
  const MemoryPlan plan = TRY(plan_memory(options.memory_bytes));
  const std::uint64_t frames = std::min(plan.pool_frames, std::max(layout.page_count, bufferpool::BufferPool::kMinFrames));
  pool_ = TRY(bufferpool::BufferPool::create({.frame_count = frames, .page_count = layout.page_count}, *store_,
                                             TRY(make_page_map(frames, layout.page_count))));
  TRY(grow_disk(layout, report));
  report.pages_repaired = TRY(store_->repair()).pages_repaired;
  wal::LogOptions log_options;
  log_options.durability = options.durability == DurabilityMode::kFlush ? wal::Durability::kFlush : wal::Durability::kNone;
  log_options.buffer_bytes_per_core = plan.log_buffer_bytes;
  log_options.buffer_count = plan.log_buffer_count;
  log_ = TRY(wal::Log::create(*device_, *superblock_, *pool_, log_options));
  pool_->set_write_barrier(*log_);
  space_ = TRY(btree::Space::create(*pool_, *log_, layout));
  locks_ = std::make_unique<LockTable>(plan.lock_buckets_log2);
  recovery_ = std::make_unique<btree::TreeRecovery>(env());
  return {};
}

Result<> DatabaseImpl::recover(OpenReport& report) {
  const wal::RecoveryReport recovered = TRY(log_->recover(*recovery_));
  report.was_clean = recovered.was_clean;
  report.log_bytes = recovered.log_bytes;
  report.records = recovered.records;
  report.undone_transactions = recovered.undone_txns;
  TRY(space_->load());
  return btree::finish_frees(env());
}

Result<> DatabaseImpl::load_catalog() {
  catalog_ = std::make_unique<TreeEntry>("", 0, keep_ref({kCatalogTreeId, kCatalogRoot}));
  TRY(btree::BTree::ensure_at(env(), kCatalogTreeId, kCatalogRoot));
  btree::BTree tree(env(), kCatalogTreeId, kCatalogRoot);
  btree::Cursor cursor(tree);
  std::uint64_t highest_id = kCatalogTreeId.value;
  bool more = TRY(cursor.seek({}));
  while (more) {
    const std::string key(as_view(cursor.key()));
    const std::string_view value = as_view(TRY(cursor.value()));
    TreeRef ref;
    if (key.starts_with('n')) {
      ref = TRY(decode_named(value));
      const std::string name = key.substr(1);
      entries_.emplace(name, std::make_unique<TreeEntry>(name, next_ordinal_++, keep_ref(ref)));
    } else {
      ref = TRY(decode_dropped(key, value));
      dropped_.push_back(ref);
    }
    highest_id = std::max(highest_id, ref.id.value);
    more = TRY(cursor.next());
  }
  next_tree_id_ = highest_id + 1;
  return {};
}

Result<std::unique_ptr<DatabaseImpl>> DatabaseImpl::open(std::unique_ptr<blockdev::BlockDevice> device,
                                                         const DatabaseOptions& options, OpenReport& report,
                                                         Purpose purpose, MakePageMap make_page_map) {
  if (device == nullptr) return Error(Code::kInvalidArgument, "there is no device to open");
  const auto start_ns = runtime::now_ns();
  std::unique_ptr<DatabaseImpl> db(new DatabaseImpl);
  db->device_ = std::move(device);
  db->lock_timeout_us_ = options.lock_timeout_us;
  TRY(db->attach_disk(options, report));
  const disk::Layout& layout = db->superblock_->layout();
  const bool may_grow = purpose == Purpose::kServe && !db->device_->info().read_only;
  TRY(db->build_layers(options, may_grow ? layout.grown_to(db->device_->info().size_bytes) : layout, make_page_map, report));
  TRY(db->recover(report));
  TRY(db->load_catalog());
  if (purpose == Purpose::kServe) {
    db->scrubber_ = std::make_unique<Scrubber>(*db, options.scrub);
    TRY(db->start_background());
  }
  report.duration_us = (runtime::now_ns() - start_ns) / 1000;
  return db;
}

Result<std::unique_ptr<DatabaseImpl>> DatabaseImpl::open(std::unique_ptr<blockdev::BlockDevice> device,
                                                         const DatabaseOptions& options, OpenReport& report,
                                                         Purpose purpose) {
  const auto platforms_own = [](std::uint64_t frames, std::uint64_t pages) { return bufferpool::make_page_map(frames, pages); };
  return open(std::move(device), options, report, purpose, platforms_own);
}

}  // namespace kelda::engine

namespace kelda {

Result<std::unique_ptr<Database>> Database::open(std::unique_ptr<blockdev::BlockDevice> device,
                                                 const DatabaseOptions& options, OpenReport* report) {
  OpenReport local;
  return std::unique_ptr<Database>(
      TRY(engine::DatabaseImpl::open(std::move(device), options, report == nullptr ? local : *report)));
}

Result<std::unique_ptr<Database>> Database::open(const std::string& device_name, std::uint64_t create_bytes,
                                                 const DatabaseOptions& options, OpenReport* report) {
  return open(TRY(blockdev::open(device_name, {.create_bytes = create_bytes})), options, report);
}

}  // namespace kelda
