#include "blockdev/counters.h"

#include "common/assert.h"

namespace kelda::blockdev {

void Counters::count(const Request& request, std::uint64_t bytes) {
  Line& line = lines_[runtime::Core::current().index()];
  if (!request.status) line.add(kErrors, 1);
  switch (request.op) {
    case Op::kRead:
      line.add(kReads, 1);
      line.add(kReadBytes, bytes);
      break;
    case Op::kWrite:
      line.add(kWrites, 1);
      line.add(kWriteBytes, bytes);
      break;
    case Op::kFlush: line.add(kFlushes, 1); break;
    case Op::kDiscard:
    case Op::kWriteZeroes: line.add(kDiscards, 1); break;
  }
}

DeviceStats Counters::total() const {
  DeviceStats sum{};
  for (const Line& line : lines_) {
    const auto get = [&](Kind kind) { return line.n[kind].load(std::memory_order_relaxed); };
    sum.reads += get(kReads);
    sum.writes += get(kWrites);
    sum.flushes += get(kFlushes);
    sum.discards += get(kDiscards);
    sum.read_bytes += get(kReadBytes);
    sum.write_bytes += get(kWriteBytes);
    sum.errors += get(kErrors);
  }
  return sum;
}

std::uint64_t transfer_bytes(const Request& request) {
  std::uint64_t sum = 0;
  for (const IoSegment& segment : request.segments) sum += segment.bytes;
  return sum;
}

void check_request(const Request& request, const DeviceInfo& info) {
  KELDA_ASSERT(request.completion != nullptr);
  if (request.op == Op::kFlush) return;
  const bool transfers = request.op == Op::kRead || request.op == Op::kWrite;
  const std::uint64_t bytes = transfers ? transfer_bytes(request) : request.length_bytes;
  KELDA_ASSERT(request.offset_bytes % info.block_bytes == 0);
  KELDA_ASSERT(bytes > 0 && bytes % info.block_bytes == 0);
  KELDA_ASSERT(bytes <= info.size_bytes && request.offset_bytes <= info.size_bytes - bytes);
  KELDA_ASSERT(request.op == Op::kRead || !info.read_only);
  KELDA_ASSERT(!request.fua || info.has_fua);
  if (!transfers) return;
  KELDA_ASSERT(bytes <= info.max_transfer_bytes);
  for (const IoSegment& segment : request.segments) {
    KELDA_ASSERT(segment.bytes % info.block_bytes == 0);
    KELDA_ASSERT(reinterpret_cast<std::uintptr_t>(segment.data) % info.block_bytes == 0);
  }
}

}  // namespace kelda::blockdev
