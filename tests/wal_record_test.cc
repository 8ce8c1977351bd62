// The parts that need no disk: records as bytes, and the set of open transactions.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "common/prng.h"
#include "wal/log_buffer.h"
#include "wal/record.h"
#include "wal/undo_set.h"

namespace kelda::wal {
namespace {

std::vector<std::byte> encoded(const RecordSpec& spec, std::uint64_t lsn) {
  std::vector<std::byte> out(encoded_bytes(spec));
  encode(spec, nullptr, out.size(), out.data());
  set_lsn(out.data(), Lsn{lsn});
  return out;
}

Bytes text(const char* s) { return as_bytes(s); }

TEST(WalRecord, RoundTrip) {
  const auto bytes = encoded({.kind = RecordKind::kUpdate, .txn = TxnId{77}, .undo = text("take it back"),
                              .count = {TreeId{5}, -3}, .undo_next = Lsn{12}}, 99);
  EXPECT_EQ(bytes.size() % 8, 0U);
  const auto view = RecordView::parse(bytes);
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ(view->lsn(), Lsn{99});
  EXPECT_EQ(view->txn(), TxnId{77});
  EXPECT_EQ(view->undo_next(), Lsn{12});
  EXPECT_EQ(view->count().tree, TreeId{5});
  EXPECT_EQ(view->count().delta, -3);
  EXPECT_EQ(as_view(view->undo()), "take it back");
}

// A checksum that happens to fit garbage is not expected, but must not lead outside the record.
TEST(WalRecord, ParseNeverLeavesTheBytes) {
  const auto good = encoded({.kind = RecordKind::kUpdate, .txn = TxnId{1}, .undo = text("0123456789")}, 3);
  for (std::size_t size = 0; size < good.size(); ++size) {
    const std::vector<std::byte> cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_FALSE(RecordView::parse(cut).has_value());
  }
  Prng prng(1);
  for (int i = 0; i < 20'000; ++i) {
    auto bytes = good;
    for (int n = 0; n < 3; ++n) bytes[prng.below(bytes.size())] = static_cast<std::byte>(prng.next());
    const auto view = RecordView::parse(bytes);
    if (!view) continue;
    std::size_t offset = 0;
    for (std::uint32_t c = 0; c < view->change_count(); ++c) EXPECT_LE(view->change_at(offset).payload.size(), bytes.size());
    EXPECT_LE(view->undo().size(), bytes.size());
  }
}

TEST(LogBuffer, MoreMemoryThanThereIsIsRefused) {
  constexpr std::uint64_t kTooMuch = std::uint64_t{1} << 60;
  EXPECT_TRUE(allocate_aligned(kTooMuch, kPageBytes).failed_with(Code::kOutOfMemory));
  EXPECT_TRUE(LogBuffer::create(kTooMuch).failed_with(Code::kOutOfMemory));
}

class UndoSetTest : public testing::Test {
 protected:
  void update(std::uint64_t lsn, std::uint64_t txn) { add({.txn = TxnId{txn}, .undo = text("undo")}, lsn); }
  void compensate(std::uint64_t lsn, std::uint64_t txn, std::uint64_t entry) { add({.txn = TxnId{txn}, .undo_next = Lsn{entry}}, lsn); }
  void end(std::uint64_t lsn, std::uint64_t txn, RecordKind kind) { add({.kind = kind, .txn = TxnId{txn}}, lsn); }
  void checkpoint(std::uint64_t lsn) { add({.kind = RecordKind::kCheckpoint}, lsn); }
  void checkpoint_end(std::uint64_t lsn) { add({.kind = RecordKind::kCheckpointEnd}, lsn); }
  void copy(std::uint64_t lsn, std::uint64_t txn, std::uint64_t entry) {
    std::vector<std::byte> body(kUndoCopyHeaderBytes + 4);
    const std::uint32_t size = 4;
    std::memcpy(body.data(), &txn, 8);
    std::memcpy(body.data() + 8, &entry, 8);
    std::memcpy(body.data() + 16, &size, 4);
    add({.kind = RecordKind::kUndoCopy, .undo = body}, lsn);
  }
  std::vector<std::uint64_t> entries(std::uint64_t txn) const {
    std::vector<std::uint64_t> out;
    if (const auto found = set_.open().find(txn); found != set_.open().end()) {
      for (const auto& [lsn, undo] : found->second) out.push_back(lsn);
    }
    return out;
  }
  using Lsns = std::vector<std::uint64_t>;
  UndoSet set_;

 private:
  void add(const RecordSpec& spec, std::uint64_t lsn) {
    const auto bytes = encoded(spec, lsn);
    EXPECT_TRUE(set_.add(*RecordView::parse(bytes)).has_value());
  }
};

TEST_F(UndoSetTest, KeepsWhatIsNeitherEndedNorCompensated) {
  update(1, 10);
  update(2, 10);
  update(3, 20);
  compensate(4, 10, 2);
  end(5, 20, RecordKind::kCommit);
  EXPECT_EQ(entries(10), (Lsns{1}));
  EXPECT_TRUE(entries(20).empty());
  EXPECT_EQ(set_.highest_txn(), 20U);
}

TEST_F(UndoSetTest, CopiesBringInEntriesFromBeforeTheRedoPoint) {
  checkpoint(100);
  update(101, 10);
  copy(102, 10, 50);
  copy(103, 10, 51);
  checkpoint_end(104);
  compensate(105, 10, 101);
  compensate(106, 10, 51);
  EXPECT_EQ(entries(10), (Lsns{50}));
}

TEST_F(UndoSetTest, CopiesThatWereOvertakenAreLeftOut) {
  checkpoint(100);
  compensate(101, 10, 51);           // after it was copied, before the copy was logged
  end(102, 20, RecordKind::kCommit);  // likewise
  copy(103, 10, 50);
  copy(104, 10, 51);
  copy(105, 20, 60);
  checkpoint_end(106);
  EXPECT_EQ(entries(10), (Lsns{50}));
  EXPECT_TRUE(entries(20).empty());
}

TEST_F(UndoSetTest, ACheckpointThatWasNotFinishedLeavesDuplicatesOnly) {
  update(1, 10);
  update(2, 10);
  checkpoint(100);
  copy(101, 10, 1);
  copy(102, 10, 2);
  // Cut here; the next start undoes entry 2 and takes its own checkpoint.
  compensate(103, 10, 2);
  checkpoint(104);
  copy(105, 10, 1);
  checkpoint_end(106);
  EXPECT_EQ(entries(10), (Lsns{1}));
}

}  // namespace
}  // namespace kelda::wal
