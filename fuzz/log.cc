// The log's bytes: records of any content, in batches whose checksums and links are right (as far as the input leaves
// them so). Reading ends in an error or in a count; every record that is accepted lies within its batch.
#include <memory>
#include <vector>

#include "blockdev/memory_sim.h"
#include "common/assert.h"
#include "disk/superblock.h"
#include "fuzz/fuzz_target.h"
#include "fuzz/input.h"
#include "wal/batch.h"
#include "wal/log.h"
#include "wal/record.h"

namespace kelda::fuzz {

namespace {

constexpr std::uint64_t kUnit = 4096;

blockdev::MemoryDevice& formatted_disk() {
  static const auto disk = [] {
    auto made = std::make_unique<blockdev::MemoryDevice>(blockdev::MemoryOptions{.size_bytes = 16_MiB});
    const auto formatted = disk::Superblock::format(*made, {});
    KELDA_ASSERT(formatted.has_value());
    return made;
  }();
  return *disk;
}

// A record that says of itself what is right, and then what the input makes of it.
void add_record(std::vector<std::byte>& records, Input& input, std::uint64_t lsn) {
  const std::string content = input.text();
  wal::RecordHeader header{};
  header.bytes = static_cast<std::uint32_t>(round_up(sizeof header + content.size(), 8));
  header.kind = static_cast<std::uint8_t>(1 + input.below(7));
  header.change_count = input.byte() % 3;
  header.lsn = lsn;
  header.txn = input.byte();
  header.undo_bytes = header.change_count == 0 ? static_cast<std::uint32_t>(content.size()) : input.byte();
  const std::size_t at = records.size();
  records.resize(at + header.bytes);
  std::memcpy(records.data() + at, &header, sizeof header);
  std::memcpy(records.data() + at + sizeof header, content.data(), content.size());
  patch({records.data() + at, header.bytes}, input, input.byte() % 4);
}

void check_view(const wal::RecordView& view, Bytes from) {
  const auto inside = [&](Bytes part) {
    return part.empty() || (part.data() >= from.data() && part.data() + part.size() <= from.data() + view.bytes());
  };
  KELDA_ASSERT(view.bytes() <= from.size() && inside(view.undo()));
  std::size_t offset = 0;
  for (std::uint32_t i = 0; i < view.change_count(); ++i) KELDA_ASSERT(inside(view.change_at(offset).payload));
}

void run(Bytes bytes) {
  Input input(bytes);
  auto& disk = formatted_disk();
  const auto superblock = disk::Superblock::read(disk);
  KELDA_ASSERT(superblock.has_value());
  const disk::Layout& layout = superblock->layout();
  std::uint64_t position = 0, previous = 0, lsn = 1;
  for (std::uint64_t sequence = 1; sequence <= 6 && !input.empty(); ++sequence) {
    std::vector<std::byte> batch(sizeof(wal::BatchHeader));
    std::vector<std::byte> records;
    const std::uint64_t first = lsn;
    for (unsigned count = 1 + input.byte() % 5; count > 0; --count) add_record(records, input, lsn++);
    if (const auto view = wal::RecordView::parse(records)) check_view(*view, records);
    batch.insert(batch.end(), records.begin(), records.end());
    wal::BatchHeader header{};
    header.sequence = sequence;
    header.position = position;
    header.bytes = static_cast<std::uint32_t>(batch.size());
    header.record_count = 1;
    header.first_lsn = first;
    header.last_lsn = lsn - 1;
    header.cut = lsn;
    header.previous_checksum = previous;
    header.durable_sequence = sequence - 1;
    patch({reinterpret_cast<std::byte*>(&header), sizeof header}, input, input.byte() % 3);
    const std::size_t whole = round_up(batch.size(), kUnit);
    batch.resize(whole);
    header.bytes = std::min<std::uint32_t>(header.bytes, static_cast<std::uint32_t>(whole));
    if (header.bytes < sizeof header) header.bytes = sizeof header;
    wal::seal_batch(batch.data(), header, layout.checksum_seed());
    std::memcpy(&previous, batch.data(), sizeof previous);
    disk.poke(layout.log_offset + position, batch);
    position += whole;
  }
  disk.poke(layout.log_offset + position, std::vector<std::byte>(kUnit));
  const auto report = wal::scan_log(disk, *superblock);
  KELDA_ASSERT(!report || report->bytes <= layout.log_bytes);
}

}  // namespace

const FuzzTarget kLog = {"log", run};

}  // namespace kelda::fuzz
