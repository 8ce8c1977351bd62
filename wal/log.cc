// The log as its users see it: creation, waiting, counts, figures.
#include "wal/log.h"

#include <algorithm>

#include "common/assert.h"
#include "wal/log_impl.h"
#include "wal/recovery.h"

namespace kelda::wal {
namespace {

struct Sizes {
  std::uint64_t unit_bytes, half_bytes;
  std::uint32_t buffer_count;
};

// Halves hold the largest reservation with its overheads; all of them together are one batch (ring_space.h: W).
constexpr std::uint64_t kMinHalfBytes = 128 << 10;
static_assert(kMaxReserveBytes + 8 * kRecordOverheadBytes <= kMinHalfBytes);

Sizes choose_sizes(std::uint64_t ring_bytes, std::uint32_t block_bytes, const LogOptions& options) {
  const std::uint64_t unit = std::max<std::uint64_t>(kBatchUnitBytes, block_bytes);
  const std::uint64_t all = round_down(std::min(ring_bytes / 8, kMaxBatchBytes) - 4 * unit, kPageBytes);
  const auto count = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(options.buffer_count, 1, all / kMinHalfBytes));
  const std::uint64_t most = round_down(all / count, kPageBytes);
  const std::uint64_t half = std::clamp(round_up(options.buffer_bytes_per_core / 2, kPageBytes), kMinHalfBytes, most);
  return {unit, half, count};
}

}  // namespace

Log::Impl::Impl(blockdev::BlockDevice& device_in, disk::Superblock& superblock_in, bufferpool::BufferPool& pool_in,
                const LogOptions& options_in, std::uint64_t unit_bytes, std::uint64_t buffered_bytes)
    : device(device_in), superblock(superblock_in), pool(pool_in), options(options_in), layout(superblock_in.layout()),
      space(layout.log_bytes, unit_bytes, buffered_bytes), flush(device, layout, space, buffers, next, checkpoint_wanted, write_wanted),
      checkpointer(*this) {}

Log::Log(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Log::~Log() = default;

Result<std::unique_ptr<Log>> Log::create(blockdev::BlockDevice& device, disk::Superblock& superblock,
                                         bufferpool::BufferPool& pool, const LogOptions& options) {
  const auto& info = device.info();
  if (options.durability == Durability::kFlush && !info.has_flush && !info.has_fua) {
    return Error(Code::kNoFlush, info.name + " cannot flush, so nothing written to it is sure to last: use another device, "
                                             "or accept the loss with durability 'none'");
  }
  const std::uint64_t ring = superblock.layout().log_bytes;
  if (ring < kMinRingBytes) return Error(Code::kTooSmall, "the log ring is below 2 MiB: format the disk anew with a larger log");
  const Sizes sizes = choose_sizes(ring, info.block_bytes, options);
  auto impl = std::make_unique<Impl>(device, superblock, pool, options, sizes.unit_bytes, sizes.half_bytes * sizes.buffer_count);
  for (std::uint32_t i = 0; i < sizes.buffer_count; ++i) impl->buffers.push_back(TRY(LogBuffer::create(sizes.half_bytes)));
  TRY(impl->flush.allocate());
  return std::unique_ptr<Log>(new Log(std::move(impl)));
}

Result<RecoveryReport> Log::recover(RecoveryHandler& handler, const std::function<void(const RecoveryReport&)>& progress) {
  KELDA_ASSERT(!impl_->recovered);
  return Recovery(*impl_, handler, progress).run();
}

void Log::begin(TxnLog& txn) {
  KELDA_ASSERT(!txn.in_table && txn.undo.empty());
  if (txn.id == kNoTxn) txn.id = TxnId{impl_->next_txn.fetch_add(1, std::memory_order_relaxed)};
  txn.first_lsn = txn.last_lsn = kNoLsn;
  txn.logged_bytes = 0;
}

Result<> Log::wait_durable(Lsn lsn) { return impl_->flush.wait(lsn); }

Result<> Log::wait_commit(Lsn lsn) {
  return impl_->options.durability == Durability::kNone ? impl_->flush.health() : impl_->flush.wait(lsn);
}

Lsn Log::durable() const { return impl_->flush.durable(); }
Lsn Log::next() const { return Lsn{impl_->log_now()}; }
Result<> Log::checkpoint(bool clean_shutdown) { return impl_->checkpointer.run(clean_shutdown); }
void Log::abandon(TxnLog& txn, const Error& why) {
  // In this order: a checkpoint that does not meet the transaction any more cannot end.
  impl_->flush.fail(Error(Code::kFailed, "a transaction could not be rolled back (" + why.to_string() + "); restart to recover"));
  impl_->txns.leave(txn);
}

Result<> Log::health() const { return impl_->flush.health(); }

std::int64_t Log::count_of(TreeId tree) const {
  std::int64_t sum = 0;
  for (const auto& buffer : impl_->buffers) sum += buffer->count_of(tree);
  return sum;
}

void Log::set_count(TreeId tree, std::int64_t count) {
  impl_->with_all_buffers_locked([&] {
    for (auto& buffer : impl_->buffers) buffer->counts_locked().erase(tree.value);
    if (count != 0) impl_->buffers.front()->counts_locked()[tree.value] = count;
  });
}

LogStats Log::stats() const {
  const GroupFlush::Stats flushed = impl_->flush.stats();
  LogStats out{};
  for (const auto& buffer : impl_->buffers) {
    out.appended_records += buffer->appended_records();
    out.appended_bytes += buffer->appended_bytes();
  }
  out.batches = flushed.batches;
  out.written_bytes = flushed.written_bytes;
  out.flushes = flushed.flushes;
  out.waits = flushed.waits;
  out.used_bytes = impl_->space.used();
  out.capacity_bytes = impl_->space.capacity();
  out.checkpoints = impl_->checkpointer.done();
  out.next = next();
  out.durable = durable();
  return out;
}

}  // namespace kelda::wal
