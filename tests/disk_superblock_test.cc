// Recognising disks: what is blank, ours, newer, damaged, someone else's; and that a superblock write survives a crash.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "blockdev/memory_sim.h"
#include "common/checksum.h"
#include "common/function_ref.h"
#include "disk/aligned_buffer.h"
#include "disk/double_write_slot.h"
#include "disk/page_check.h"
#include "disk/superblock.h"
#include "disk/superblock_format.h"

namespace kelda::disk {
namespace {

using blockdev::MemoryDevice;
using blockdev::Survival;

MemoryDevice device_of(std::uint64_t size_bytes) { return MemoryDevice({.size_bytes = size_bytes, .name = "test-disk"}); }

void poke_text(MemoryDevice& device, std::uint64_t offset, std::string_view text) { device.poke(offset, as_bytes(text)); }

std::string read_error(MemoryDevice& device, Code expected) {
  Result<Superblock> result = Superblock::read(device);
  EXPECT_FALSE(result);
  if (result) return {};
  EXPECT_EQ(code_name(result.error().code()), code_name(expected));
  EXPECT_NE(result.error().message().find("test-disk"), std::string::npos);
  return result.error().message();
}

// Rewrites both copies as another program would have written them.
void forge(MemoryDevice& device, auto change) {
  for (unsigned copy = 0; copy < 2; ++copy) {
    AlignedBuffer page(kPageBytes);
    device.peek(kSuperblockCopyOffsets[copy], page.span());
    auto& bytes = *reinterpret_cast<SuperblockBytes*>(page.data());
    change(bytes);
    seal_superblock(bytes, copy);
    device.poke(kSuperblockCopyOffsets[copy], page.span());
  }
}

TEST(Superblock, ABlankDiskSaysHowToFormatIt) {
  MemoryDevice device = device_of(16_MiB);
  const std::string error = read_error(device, Code::kBlankDisk);
  EXPECT_EQ(error.find("--create"), std::string::npos) << "of no use to who only reads: " << error;
  EXPECT_NE(advise_to_format(Error(Code::kBlankDisk, error)).message().find("--create"), std::string::npos);
}

TEST(Superblock, FormatThenReadGivesTheSameLayout) {
  MemoryDevice device = device_of(64_MiB);
  Result<Superblock> formatted = Superblock::format(device, {});
  ASSERT_TRUE(formatted) << formatted.error().to_string();
  Result<Superblock> read = Superblock::read(device);
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(read->layout().uuid, formatted->layout().uuid);
  EXPECT_EQ(read->layout().page_count, formatted->layout().page_count);
  EXPECT_EQ(read->layout().log_bytes, 4_MiB);
  EXPECT_EQ(read->valid_copies(), 2u);
  EXPECT_EQ(read->checkpoint().redo_lsn, Lsn(1));
  EXPECT_FALSE(read->checkpoint().clean);
}

TEST(Superblock, LayoutsFillTheDeviceFromTheSmallestToHugeOnes) {
  for (std::uint64_t size : {16_MiB, 17_MiB + 512, 100_MiB, 4_GiB, 1024_GiB, 64 * 1024_GiB}) {
    Result<Layout> layout = choose_layout(size, 0);
    ASSERT_TRUE(layout);
    EXPECT_TRUE(layout->plausible());
    EXPECT_LE(layout->offset_of(PageId(layout->page_count)), size);
    EXPECT_GT(layout->offset_of(PageId(layout->page_count)) + kPageBytes, size);
    EXPECT_GE(layout->page_count * kPageBytes, size / 2);
    EXPECT_GE(layout->log_bytes, 2_MiB);
    EXPECT_LE(layout->log_bytes, 256_MiB);
  }
}

TEST(Superblock, ALogThatDoesNotFitIsRefused) {
  MemoryDevice device = device_of(32_MiB);
  EXPECT_TRUE(Superblock::format(device, {.log_bytes = 31_MiB}).failed_with(Code::kInvalidArgument));
  EXPECT_TRUE(Superblock::read(device).failed_with(Code::kBlankDisk)) << "a refused format must not touch the disk";
}

TEST(Superblock, FormattingWritesLittle) {
  MemoryDevice device = device_of(4_GiB);
  ASSERT_TRUE(Superblock::format(device, {}));
  EXPECT_LE(device.stats().write_bytes, 64_KiB);
}

TEST(Superblock, TooSmallDevicesAreRefusedByName) {
  MemoryDevice device = device_of(16_MiB - 4096);
  EXPECT_NE(read_error(device, Code::kTooSmall).find("16 MiB"), std::string::npos);
  EXPECT_TRUE(Superblock::format(device, {}).failed_with(Code::kTooSmall));
  EXPECT_TRUE(Superblock::format(device, {.force = true}).failed_with(Code::kTooSmall));
}

TEST(Superblock, ForeignDisksAreNamedAndLeftAlone) {
  struct Case { std::uint64_t offset; std::string_view bytes, named; };
  using namespace std::string_view_literals;
  const Case cases[] = {
      {1024 + 56, "\x53\xef"sv, "ext2/3/4"}, {0, "XFSB"sv, "XFS"}, {0, "LUKS\xba\xbe"sv, "LUKS"},
      {0, "SQLite format 3\0"sv, "SQLite"}, {510, "\x55\xaa"sv, "MBR"}, {512, "EFI PART"sv, "GPT"},
      {0, "QFI\xfb"sv, "qcow2"}, {0x10040, "_BHRfS_M"sv, "Btrfs"}, {512, "LABELONE"sv, "LVM"},
      {0, "dear diary, today\nit rained\n"sv, "holds text,"},
      {0, "\x01\x02\x03"sv, "unknown kind"}, {900'000, "x"sv, "unknown kind"},
  };
  for (const Case& one : cases) {
    MemoryDevice device = device_of(16_MiB);
    poke_text(device, one.offset, one.bytes);
    EXPECT_NE(read_error(device, Code::kForeignDisk).find(one.named), std::string::npos) << one.named;
    // Whoever only reads is not told to format, and nobody is shown a piece of the content.
    EXPECT_EQ(read_error(device, Code::kForeignDisk).find("--force"), std::string::npos) << one.named;
    EXPECT_EQ(read_error(device, Code::kForeignDisk).find("diary"), std::string::npos) << one.named;
    const auto refused = Superblock::format(device, {});
    ASSERT_TRUE(refused.failed_with(Code::kForeignDisk)) << one.named;
    EXPECT_NE(refused.error().message().find("--force"), std::string::npos) << one.named;
    EXPECT_EQ(device.stats().writes, 0u) << one.named;
    EXPECT_TRUE(Superblock::format(device, {.force = true})) << one.named;
    EXPECT_TRUE(Superblock::read(device)) << one.named;
  }
}

TEST(Superblock, DataAtTheEndAloneMakesADiskForeign) {
  MemoryDevice device = device_of(16_MiB);
  poke_text(device, 16_MiB - 512, "EFI PART");
  EXPECT_NE(read_error(device, Code::kForeignDisk).find("end holds data"), std::string::npos);
}

TEST(Superblock, AKeldaDiskIsNotFormattedAgainWithoutForce) {
  MemoryDevice device = device_of(16_MiB);
  Result<Superblock> first = Superblock::format(device, {});
  ASSERT_TRUE(first);
  EXPECT_TRUE(Superblock::format(device, {}).failed_with(Code::kExists));
  Result<Superblock> second = Superblock::format(device, {.force = true});
  ASSERT_TRUE(second);
  EXPECT_NE(first->layout().uuid, second->layout().uuid);
  EXPECT_NE(first->layout().checksum_seed(), second->layout().checksum_seed());
}

TEST(Superblock, NewerDisksAreRefused) {
  MemoryDevice device = device_of(16_MiB);
  ASSERT_TRUE(Superblock::format(device, {}));
  forge(device, [](SuperblockBytes& bytes) { bytes.format_version = kFormatVersion + 1; });
  EXPECT_NE(read_error(device, Code::kNewerFormat).find("newer"), std::string::npos);
  EXPECT_TRUE(Superblock::format(device, {}).failed_with(Code::kExists));
  forge(device, [](SuperblockBytes& bytes) { bytes.format_version = kFormatVersion; bytes.incompatible = 4; });
  read_error(device, Code::kNewerFormat);
  forge(device, [](SuperblockBytes& bytes) { bytes.incompatible = 0; bytes.compatible = 4; });
  EXPECT_TRUE(Superblock::read(device)) << "unknown compatible features do no harm";
}

TEST(Superblock, ASenselessLayoutIsNotBelieved) {
  MemoryDevice device = device_of(16_MiB);
  ASSERT_TRUE(Superblock::format(device, {}));
  forge(device, [](SuperblockBytes& bytes) { bytes.page_count = ~std::uint64_t{0}; });
  read_error(device, Code::kCorrupt);
}

TEST(Superblock, ASenselessCheckpointIsNotBelieved) {
  using Change = void (*)(SuperblockBytes&);
  const Change changes[] = {[](SuperblockBytes& bytes) { bytes.log_position = 512; },
                            [](SuperblockBytes& bytes) { bytes.log_position = ~std::uint64_t{4095}; },
                            [](SuperblockBytes& bytes) { bytes.redo_lsn = 0; },
                            [](SuperblockBytes& bytes) { bytes.batch_sequence = 0; }};
  for (const Change change : changes) {
    MemoryDevice device = device_of(16_MiB);
    ASSERT_TRUE(Superblock::format(device, {}));
    forge(device, change);
    read_error(device, Code::kCorrupt);
  }
}

TEST(Superblock, AShortenedDeviceIsTooSmall) {
  MemoryDevice device = device_of(16_MiB);
  ASSERT_TRUE(Superblock::format(device, {}));
  forge(device, [](SuperblockBytes& bytes) { bytes.device_bytes += 1_MiB; });
  EXPECT_NE(read_error(device, Code::kTooSmall).find("cut short"), std::string::npos);
}

TEST(Superblock, OneDamagedCopyIsNoLossTwoAreReported) {
  MemoryDevice device = device_of(16_MiB);
  Result<Superblock> superblock = Superblock::format(device, {});
  ASSERT_TRUE(superblock);
  device.flip_bit(200, 3);
  Result<Superblock> read = Superblock::read(device);
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(read->valid_copies(), 1u);
  device.flip_bit(kSuperblockCopyOffsets[1] + 3000, 0);
  EXPECT_NE(read_error(device, Code::kCorrupt).find("both copies"), std::string::npos);
  EXPECT_TRUE(Superblock::format(device, {}).failed_with(Code::kExists));
}

TEST(Superblock, ACopyThatCannotBeReadDoesNotTakeTheOtherWithIt) {
  for (std::uint64_t offset : kSuperblockCopyOffsets) {
    MemoryDevice device = device_of(16_MiB);
    ASSERT_TRUE(Superblock::format(device, {}));
    device.set_plan({.rules = {{.op = blockdev::Op::kRead, .from_bytes = offset, .to_bytes = offset + kPageBytes,
                                .count = blockdev::FaultRule::kAlways}}});
    Result<Superblock> read = Superblock::read(device);
    ASSERT_TRUE(read) << read.error().to_string();
    EXPECT_EQ(read->valid_copies(), 1u);
  }
  MemoryDevice device = device_of(16_MiB);
  device.set_plan({.rules = {{.op = blockdev::Op::kRead, .count = blockdev::FaultRule::kAlways}}});
  EXPECT_TRUE(Superblock::read(device).failed_with(Code::kIo));
  EXPECT_TRUE(Superblock::format(device, {}).failed_with(Code::kIo)) << "what cannot be read is not called blank";
}

TEST(Superblock, ACheckpointIsTheOldOrTheNewOneAfterACrashAtAnyOperation) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    for (std::uint64_t crash_at = 0;; ++crash_at) {
      MemoryDevice device({.size_bytes = 16_MiB, .name = "test-disk"});
      Result<Superblock> superblock = Superblock::format(device, {});
      ASSERT_TRUE(superblock);
      device.set_plan({.seed = seed, .rules = {}, .crash_after_ops = device.op_count() + crash_at});
      std::uint64_t acknowledged = 1;
      for (std::uint64_t lsn = 2; lsn < 6; ++lsn) {
        if (!superblock->write_checkpoint(device, {Lsn(lsn), lsn * 4096, lsn, lsn == 5})) break;
        acknowledged = lsn;
      }
      const bool survived = !device.dead();
      auto rebooted = device.crash(Survival::kRandom, seed);
      Result<Superblock> read = Superblock::read(*rebooted);
      ASSERT_TRUE(read) << read.error().to_string();
      EXPECT_GE(read->checkpoint().redo_lsn.value, acknowledged);
      EXPECT_LE(read->checkpoint().redo_lsn.value, acknowledged + 1);
      EXPECT_EQ(read->checkpoint().clean, read->checkpoint().redo_lsn == Lsn(5));
      if (survived) {
        EXPECT_EQ(acknowledged, 5u);
        break;
      }
    }
  }
}

// Calls visit with each disk that the cut of this device may leave: all subsets of its unflushed writes, and each of
// them torn at each 512 bytes.
void for_each_outcome(MemoryDevice& device, FunctionRef<void(MemoryDevice&)> visit) {
  const auto writes = device.cut_power();
  ASSERT_LE(writes.size(), 6u);
  for (unsigned mask = 0; mask < 1u << writes.size(); ++mask) {
    std::vector<blockdev::Survived> survived;
    for (std::size_t i = 0; i < writes.size(); ++i) survived.push_back({0, (mask >> i & 1) != 0 ? writes[i].length_bytes : 0});
    visit(*device.crash(survived));
    for (std::size_t torn = 0; torn < writes.size(); ++torn) {
      auto part = survived;
      for (std::uint64_t at = 512; at < writes[torn].length_bytes; at += 512) {
        part[torn] = {0, at};
        visit(*device.crash(part));
        part[torn] = {at, writes[torn].length_bytes};
        visit(*device.crash(part));
      }
    }
  }
}

TEST(Superblock, APowerCutTearsNoCopy) {
  MemoryDevice device = device_of(16_MiB);
  Result<Superblock> superblock = Superblock::format(device, {});
  ASSERT_TRUE(superblock);
  for (std::uint64_t lsn = 2; lsn < 4; ++lsn) {
    auto cut = device.snapshot(Survival::kAll);
    cut->set_plan({.crash_after_ops = 1});  // the write, and not its flush
    Superblock next = *superblock;
    EXPECT_FALSE(next.write_checkpoint(*cut, {Lsn(lsn), lsn * 4096, lsn, false}));
    std::size_t outcomes = 0;
    for_each_outcome(*cut, [&](MemoryDevice& rebooted) {
      ++outcomes;
      const Result<Superblock> read = Superblock::read(rebooted);
      ASSERT_TRUE(read);
      EXPECT_EQ(read->valid_copies(), 2u);
    });
    EXPECT_GT(outcomes, 7u);
    ASSERT_TRUE(superblock->write_checkpoint(device, {Lsn(lsn), lsn * 4096, lsn, false}));
  }
}

TEST(Superblock, AFormattingThatWasCutOffCanBeginAgain) {
  for (std::uint64_t crash_at = 0, survived = 0; survived == 0; ++crash_at) {
    MemoryDevice device({.size_bytes = 16_MiB, .name = "test-disk"}, {.crash_after_ops = crash_at});
    const bool formatted = Superblock::format(device, {}).has_value();
    survived = !device.dead();
    for_each_outcome(device, [&](MemoryDevice& rebooted) {
      Result<Superblock> read = Superblock::read(rebooted);
      EXPECT_TRUE(read || (read.failed_with(Code::kBlankDisk) && !formatted)) << crash_at << ": " << read.error().to_string();
      if (read) return;
      ASSERT_TRUE(Superblock::format(rebooted, {}));
      EXPECT_TRUE(Superblock::read(rebooted));
    });
  }
}

// The old disk, or not that disk any more: never the old superblock above pages that were given up.
TEST(Superblock, AForcedFormattingThatIsCutOffLeavesNoHalfOfTheOldDisk) {
  MemoryDevice old = device_of(16_MiB);
  Result<Superblock> first = Superblock::format(old, {});
  ASSERT_TRUE(first);
  for (std::uint64_t lsn = 2; lsn < 9; ++lsn) ASSERT_TRUE(first->write_checkpoint(old, {Lsn(lsn), lsn * 4096, lsn, false}));
  AlignedBuffer map(kPageBytes), found(kPageBytes);
  stamp_page(PageId(0), map.data(), first->layout().checksum_seed());
  old.poke(first->layout().offset_of(PageId(0)), map.span());
  for (std::uint64_t crash_at = 0, survived = 0; survived == 0; ++crash_at) {
    auto device = old.crash(Survival::kAll);
    device->set_plan({.crash_after_ops = crash_at});
    const bool formatted = Superblock::format(*device, {.force = true}).has_value();
    survived = !device->dead();
    for_each_outcome(*device, [&](MemoryDevice& rebooted) {
      Result<Superblock> read = Superblock::read(rebooted);
      if (!read || read->layout().uuid != first->layout().uuid) {
        EXPECT_TRUE(read || !formatted) << read.error().to_string();
        return;
      }
      rebooted.peek(first->layout().offset_of(PageId(0)), found.span());
      EXPECT_EQ(std::memcmp(found.data(), map.data(), kPageBytes), 0) << "cut at " << crash_at;
    });
  }
}

TEST(Superblock, AfterAForcedFormatNoOldByteVerifies) {
  MemoryDevice device = device_of(16_MiB);
  Result<Superblock> first = Superblock::format(device, {});
  ASSERT_TRUE(first);
  AlignedBuffer page(kPageBytes);
  for (std::uint64_t id : {0, 1}) {
    stamp_page(PageId(id), page.data(), first->layout().checksum_seed());
    ASSERT_TRUE(device.write(first->layout().offset_of(PageId(id)), page.span()));
  }
  Result<Superblock> second = Superblock::format(device, {.force = true});
  ASSERT_TRUE(second);
  auto store = make_double_write_store(device, second->layout());
  EXPECT_TRUE(store->read(PageId(0), page.data()).failed_with(Code::kNotFound)) << "space maps are cleared";
  EXPECT_TRUE(store->read(PageId(1), page.data()).failed_with(Code::kCorrupt)) << "other pages keep bytes that do not verify";
}

}  // namespace
}  // namespace kelda::disk
