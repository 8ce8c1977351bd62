#include "fuzz/disk_images.h"

#include "common/assert.h"
#include "disk/double_write_slot.h"
#include "disk/page_check.h"
#include "disk/superblock.h"
#include "disk/superblock_format.h"
#include "engine/database_impl.h"
#include "wal/batch.h"

namespace kelda::fuzz {

namespace {

using blockdev::MemoryDevice;
using blockdev::Survival;
using engine::DatabaseImpl;

constexpr std::uint64_t kDiskBytes = 16_MiB;
constexpr std::uint64_t kLogUnit = 4096;

template <class T>
T must(Result<T> result) {
  KELDA_ASSERT(result.has_value());
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

std::string key_of(unsigned i) { return "user:" + std::to_string(i * 7919 % 1000); }

void put_many(Database& db, Tree tree, unsigned begin, unsigned end) {
  auto txn = db.begin();
  for (unsigned i = begin; i < end; ++i) {
    const std::size_t bytes = i % 40 == 0 ? 9000 : i % 17 == 0 ? 900 : 60;
    must(txn->put(tree, key_of(i), std::string(bytes, static_cast<char>('a' + i % 26))));
  }
  must(txn->commit());
}

// Two trees with splits, merges and values of every kind, a dropped one, a checkpoint; then, in the log alone, a commit
// and two transactions that never end.
std::unique_ptr<MemoryDevice> make_disk(DiskState state) {
  auto owned = std::make_unique<MemoryDevice>(blockdev::MemoryOptions{.size_bytes = kDiskBytes});
  MemoryDevice& disk = *owned;
  OpenReport report;
  auto db = must(DatabaseImpl::open(std::move(owned), {.memory_bytes = 16_MiB, .create_if_blank = true}, report,
                                    DatabaseImpl::Purpose::kInspect));
  const Tree first = must(db->tree("first", true)), second = must(db->tree("second", true));
  put_many(*db, first, 0, 600);
  put_many(*db, second, 0, 100);
  for (unsigned i = 0; i < 300; i += 2) must(db->remove(first, key_of(i)));
  put_many(*db, must(db->tree("dropped", true)), 0, 50);
  must(db->drop_tree("dropped"));
  must(db->checkpoint());
  put_many(*db, second, 100, 140);
  auto undone = db->begin(), also_undone = db->begin();
  must(undone->put(first, "loser", std::string(9000, 'x')));
  must(undone->remove(first, key_of(401)));
  must(also_undone->put(second, key_of(3), "changed"));
  put_many(*db, first, 700, 710);
  if (state == DiskState::kCrashed) return disk.crash(Survival::kAll);
  must(undone->roll_back());
  must(also_undone->roll_back());
  must(db->close());
  return disk.crash(Survival::kAll);
}

// Where the structures of one disk are.
struct Places {
  disk::Layout layout;
  std::vector<PageId> pages;
  std::vector<std::uint64_t> batches;  // device offsets, in sequence
};

Places find_places(MemoryDevice& disk) {
  Places places;
  places.layout = must(disk::Superblock::read(disk)).layout();
  const std::uint64_t seed = places.layout.checksum_seed();
  std::vector<std::byte> page(kPageBytes);
  for (std::uint64_t p = 0; p < places.layout.page_count; ++p) {
    disk.peek(places.layout.offset_of(PageId(p)), page);
    if (disk::page_verifies(PageId(p), page.data(), seed)) places.pages.push_back(PageId(p));
  }
  for (std::uint64_t at = 0; at < places.layout.log_bytes; at += kLogUnit) {
    disk.peek(places.layout.log_offset + at, page);
    wal::BatchHeader header;
    if (wal::plausible_header(page.data(), places.layout.log_bytes - at, header)) places.batches.push_back(places.layout.log_offset + at);
  }
  KELDA_ASSERT(!places.pages.empty() && !places.batches.empty());
  return places;
}

struct BaseDisk {
  std::unique_ptr<MemoryDevice> disk;
  Places places;
};

const BaseDisk& base_disk(DiskState state) {
  static const auto make = [](DiskState of) {
    BaseDisk base{make_disk(of), {}};
    base.places = find_places(*base.disk);
    return base;
  };
  static const BaseDisk clean = make(DiskState::kClean), crashed = make(DiskState::kCrashed);
  return state == DiskState::kClean ? clean : crashed;
}

template <class T, class Change>
void change_at(MemoryDevice& disk, std::uint64_t offset, Change change) {
  alignas(kPageBytes) std::byte bytes[sizeof(T)];
  disk.peek(offset, bytes);
  change(*reinterpret_cast<T*>(bytes), MutableBytes(bytes));
  disk.poke(offset, bytes);
}

void damage_page(MemoryDevice& disk, const Places& places, Input& input) {
  const PageId page = places.pages[input.below(places.pages.size())];
  alignas(kPageBytes) std::byte bytes[kPageBytes];
  disk.peek(places.layout.offset_of(page), bytes);
  patch(bytes, input, input.byte() % 8);
  disk::stamp_page(page, bytes, places.layout.checksum_seed());
  disk.poke(places.layout.offset_of(page), bytes);
}

// Batches name their predecessors' checksums, so all that follow are sealed anew.
void damage_batch(MemoryDevice& disk, const Places& places, Input& input) {
  const std::size_t number = input.below(places.batches.size());
  std::uint64_t previous = 0;
  for (std::size_t i = number; i < places.batches.size(); ++i) {
    wal::BatchHeader header;
    std::vector<std::byte> bytes(kLogUnit);
    disk.peek(places.batches[i], bytes);
    std::memcpy(&header, bytes.data(), sizeof header);
    bytes.resize(round_up(header.bytes, kLogUnit));
    disk.peek(places.batches[i], bytes);
    if (i == number) patch(bytes, input, input.byte() % 8);
    std::memcpy(&header, bytes.data(), sizeof header);
    header.bytes = static_cast<std::uint32_t>(std::clamp<std::size_t>(header.bytes, sizeof header, bytes.size()));
    if (i > number) header.previous_checksum = previous;
    wal::seal_batch(bytes.data(), header, places.layout.checksum_seed());
    std::memcpy(&previous, bytes.data(), sizeof previous);
    disk.poke(places.batches[i], bytes);
  }
}

void damage_slot(MemoryDevice& disk, const Places& places, Input& input) {
  const std::uint64_t slot = input.below(places.layout.double_write_bytes / disk::kSlotBytes);
  change_at<disk::SlotHeader>(disk, places.layout.double_write_offset + slot * disk::kSlotBytes,
                              [&](disk::SlotHeader& header, MutableBytes bytes) {
                                patch(bytes, input, input.byte() % 8);
                                disk::seal_slot_header(header, slot, places.layout.checksum_seed());
                              });
}

}  // namespace

std::unique_ptr<MemoryDevice> copy_disk(DiskState state) { return base_disk(state).disk->crash(Survival::kAll); }

void damage_superblock(MemoryDevice& disk, Input& input, unsigned copy) {
  change_at<disk::SuperblockBytes>(disk, disk::kSuperblockCopyOffsets[copy],
                                   [&](disk::SuperblockBytes& superblock, MutableBytes bytes) {
                                     patch(bytes.first(offsetof(disk::SuperblockBytes, zero)), input, input.byte() % 8);
                                     disk::seal_superblock(superblock, copy);
                                   });
}

void damage_disk(MemoryDevice& disk, Input& input, unsigned count) {
  const Places places = find_places(disk);
  for (; count > 0 && !input.empty(); --count) {
    switch (input.byte() % 8) {
      case 0: damage_superblock(disk, input, input.byte() % 2); break;
      case 1: damage_slot(disk, places, input); break;
      case 2:
      case 3:
      case 4: damage_batch(disk, places, input); break;
      default: damage_page(disk, places, input); break;
    }
  }
}

}  // namespace kelda::fuzz
