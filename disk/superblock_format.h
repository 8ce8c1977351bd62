// The superblock's bytes. docs/format-disk.md says the same in words.
//
// Magic, version, checksum and the place of the two copies never change, whatever the format version: that is how an
// older program recognises a newer disk.
//
//      0 magic             "KELDADSK"
//      8 format_version
//     12 header_bytes      4096
//     16 compatible        feature bits that a program may ignore when it does not know them
//     24 incompatible      feature bits that a program must know to open the disk
//     32 uuid
//     48 device_bytes      size when formatted or last grown
//     56 log_offset, log_bytes
//     72 double_write_offset, double_write_bytes
//     88 pages_offset, page_count
//    104 sequence          of this superblock write; the higher valid copy rules
//    112 redo_lsn
//    120 log_position
//    128 batch_sequence
//    136 flags             bit 0: shut down cleanly
//    144 formatted_at_us   microseconds since 1970-01-01 UTC
//    152 zero
//    504 checksum          XXH3 of the page with this field as zero, seeded with the copy's index
//    512 zero
//
// All that changes lies in the first 512 bytes, which a disk writes whole or not at all: a power cut tears no copy.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/types.h"

namespace kelda::disk {

struct SuperblockBytes {
  std::uint64_t magic;
  std::uint32_t format_version;
  std::uint32_t header_bytes;
  std::uint64_t compatible;
  std::uint64_t incompatible;
  std::uint8_t uuid[16];
  std::uint64_t device_bytes;
  std::uint64_t log_offset, log_bytes;
  std::uint64_t double_write_offset, double_write_bytes;
  std::uint64_t pages_offset, page_count;
  std::uint64_t sequence;
  std::uint64_t redo_lsn;
  std::uint64_t log_position;
  std::uint64_t batch_sequence;
  std::uint64_t flags;
  std::int64_t formatted_at_us;
  std::uint8_t zero[504 - 152];
  std::uint64_t checksum;
  std::uint8_t zero_sectors[kPageBytes - 512];
};
static_assert(sizeof(SuperblockBytes) == kPageBytes);
static_assert(offsetof(SuperblockBytes, uuid) == 32 && offsetof(SuperblockBytes, device_bytes) == 48);
static_assert(offsetof(SuperblockBytes, pages_offset) == 88 && offsetof(SuperblockBytes, sequence) == 104);
static_assert(offsetof(SuperblockBytes, redo_lsn) == 112 && offsetof(SuperblockBytes, flags) == 136);
static_assert(offsetof(SuperblockBytes, zero) == 152 && offsetof(SuperblockBytes, checksum) == 504);

inline constexpr std::uint64_t kSuperblockMagic = 0x4b53'4441'444c'454bull;  // "KELDADSK"
inline constexpr std::uint64_t kSuperblockCleanFlag = 1;
// Known to this program. None exist yet.
inline constexpr std::uint64_t kKnownIncompatible = 0;

void seal_superblock(SuperblockBytes& bytes, unsigned copy);
bool superblock_verifies(const SuperblockBytes& bytes, unsigned copy);

}  // namespace kelda::disk
