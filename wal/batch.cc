// Sealing and judging batches.
#include "wal/batch.h"

#include <cstring>

#include "common/checksum.h"

namespace kelda::wal {
namespace {

std::uint64_t checksum_of(const std::byte* batch, const BatchHeader& header, std::uint64_t disk_seed) {
  return checksum64(Bytes(batch + 8, header.bytes - 8), disk_seed ^ header.sequence);
}

}  // namespace

void seal_batch(std::byte* batch, BatchHeader header, std::uint64_t disk_seed) {
  header.magic = kBatchMagic;
  header.version = kBatchVersion;
  std::memcpy(batch, &header, sizeof header);
  const std::uint64_t checksum = checksum_of(batch, header, disk_seed);
  std::memcpy(batch, &checksum, sizeof checksum);
}

bool plausible_header(const std::byte* at, std::uint64_t max_bytes, BatchHeader& header) {
  std::memcpy(&header, at, sizeof header);
  return header.magic == kBatchMagic && header.version == kBatchVersion && header.bytes > sizeof(BatchHeader) &&
         header.bytes <= max_bytes && header.record_count > 0 && header.sequence > 0;
}

bool verify_batch(const std::byte* batch, const BatchHeader& header, std::uint64_t disk_seed) {
  return header.checksum == checksum_of(batch, header, disk_seed);
}

}  // namespace kelda::wal
