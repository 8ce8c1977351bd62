// A batch: what one group flush writes. Header, then records in any order, then zeroes up to the unit of the ring.
// docs/format-wal.md draws it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "common/types.h"

namespace kelda::wal {

//  0 checksum           XXH3 of bytes 8 .. bytes-1, seeded with the disk's seed ^ sequence
//  8 magic
// 12 version
// 14 zero
// 16 sequence           1, 2, 3 ...
// 24 position           monotone byte position; modulo the ring's size its offset
// 32 bytes              header and records, without the padding
// 36 record_count
// 40 first_lsn          lowest
// 48 last_lsn           highest
// 56 cut                every record below it is in this batch or an earlier one
// 64 previous_checksum  of the batch with sequence - 1; 0 where the writer did not know it
// 72 durable_sequence   batches up to this one were durable when this one was written
// 80 restart_lsn        first batch after a recovery: earlier batches' records from this LSN on do not count. Else 0
// 88 zero
struct BatchHeader {
  std::uint64_t checksum;
  std::uint32_t magic;
  std::uint16_t version;
  std::uint16_t zero;
  std::uint64_t sequence;
  std::uint64_t position;
  std::uint32_t bytes;
  std::uint32_t record_count;
  std::uint64_t first_lsn;
  std::uint64_t last_lsn;
  std::uint64_t cut;
  std::uint64_t previous_checksum;
  std::uint64_t durable_sequence;
  std::uint64_t restart_lsn;
  std::uint64_t zero2;
};
static_assert(sizeof(BatchHeader) == 96 && offsetof(BatchHeader, sequence) == 16 && offsetof(BatchHeader, bytes) == 32);
static_assert(offsetof(BatchHeader, cut) == 56 && offsetof(BatchHeader, restart_lsn) == 80);

inline constexpr std::uint32_t kBatchMagic = 0x4c41574b;  // "KWAL"
inline constexpr std::uint16_t kBatchVersion = 1;

// Fills in magic, version and checksum; `batch` starts with the header and has header.bytes of content.
void seal_batch(std::byte* batch, BatchHeader header, std::uint64_t disk_seed);
// The header if it could be one of a batch (magic, lengths); its checksum is not verified.
bool plausible_header(const std::byte* at, std::uint64_t max_bytes, BatchHeader& header);
// Verifies the checksum over header.bytes.
bool verify_batch(const std::byte* batch, const BatchHeader& header, std::uint64_t disk_seed);

}  // namespace kelda::wal
