// For each anomaly the smallest history that shows it, and the isolation levels that it leaves.
#include <gtest/gtest.h>

#include "history/check.h"

namespace kelda::history {
namespace {

using Ops = std::vector<Op>;

// Transactions of different processes, all at the same time.
History at_once(std::vector<Ops> transactions) {
  History history;
  for (std::uint32_t i = 0; i < transactions.size(); ++i) {
    history.transactions.push_back({i, i, 100 + i, Outcome::kOk, std::move(transactions[i])});
  }
  return history;
}

// One after the other: transaction i from time 10 i to 10 i + 5.
History in_sequence(std::vector<Ops> transactions) {
  History history = at_once(std::move(transactions));
  for (std::uint32_t i = 0; i < history.transactions.size(); ++i) {
    history.transactions[i].begin = 10 * i;
    history.transactions[i].end = 10 * i + 5;
  }
  return history;
}

Report must_check(const History& history, const CheckOptions& options = {}) {
  auto report = check(history, options);
  EXPECT_TRUE(report.has_value()) << report.error().to_string();
  return report ? *std::move(report) : Report{};
}

// The history shows the anomaly, and satisfies no level above `best` (nullopt: none at all) and all up to it.
void expect_anomaly(const History& history, Anomaly anomaly, Order order, std::optional<Level> best) {
  const Report report = must_check(history);
  EXPECT_TRUE(report.found(anomaly, order)) << report.to_string();
  for (std::size_t level = 0; level < report.satisfied.size(); ++level) {
    EXPECT_EQ(report.satisfied[level], best && level <= static_cast<std::size_t>(*best))
        << level_name(static_cast<Level>(level)) << "\n"
        << report.to_string();
  }
}

void expect_strict(const History& history) {
  const Report report = must_check(history);
  EXPECT_TRUE(report.satisfies(Level::kStrictSerializable)) << report.to_string();
  EXPECT_TRUE(report.findings.empty()) << report.to_string();
}

constexpr Key x = 1, y = 2, z = 3;

TEST(Anomalies, G0) {
  // The final read orders x one way and y the other.
  expect_anomaly(at_once({{Op::append(x, 1), Op::append(y, 1)},
                          {Op::append(x, 2), Op::append(y, 2)},
                          {Op::read_list(x, {1, 2}), Op::read_list(y, {2, 1})}}),
                 Anomaly::kG0, Order::kData, std::nullopt);
  History registers = at_once({{Op::write(x, 1), Op::write(y, 1)}, {Op::write(x, 2), Op::write(y, 2)}});
  registers.version_orders = {{x, {1, 2}}, {y, {2, 1}}};
  expect_anomaly(registers, Anomaly::kG0, Order::kData, std::nullopt);
  // Without the orders nothing is known against it.
  registers.version_orders.clear();
  expect_strict(registers);
}

TEST(Anomalies, DirtyWrite) {
  History history = at_once({{Op::append(x, 1)}, {Op::append(x, 2)}, {Op::read_list(x, {1, 2})}});
  expect_strict(history);
  history.transactions[0].outcome = Outcome::kFailed;
  expect_anomaly(history, Anomaly::kDirtyWrite, Order::kData, std::nullopt);
  EXPECT_TRUE(must_check(history).found(Anomaly::kG1a));
  History registers = at_once({{Op::write(x, 1)}, {Op::write(x, 2)}});
  registers.version_orders = {{x, {1, 2}}};
  registers.transactions[0].outcome = Outcome::kFailed;
  expect_anomaly(registers, Anomaly::kDirtyWrite, Order::kData, std::nullopt);
}

TEST(Anomalies, G1aAbortedRead) {
  History list = at_once({{Op::append(x, 1)}, {Op::read_list(x, {1})}});
  list.transactions[0].outcome = Outcome::kFailed;
  expect_anomaly(list, Anomaly::kG1a, Order::kData, Level::kReadUncommitted);
  History registers = at_once({{Op::write(x, 1)}, {Op::read(x, 1)}});
  registers.transactions[0].outcome = Outcome::kFailed;
  expect_anomaly(registers, Anomaly::kG1a, Order::kData, Level::kReadUncommitted);
  // What a transaction that aborted had read is nobody's business.
  registers.transactions[1].outcome = Outcome::kFailed;
  expect_strict(registers);
}

TEST(Anomalies, G1bIntermediateRead) {
  expect_anomaly(at_once({{Op::append(x, 1), Op::append(x, 2)}, {Op::read_list(x, {1})}}), Anomaly::kG1b, Order::kData,
                 Level::kReadUncommitted);
  expect_anomaly(at_once({{Op::write(x, 1), Op::write(x, 2)}, {Op::read(x, 1)}}), Anomaly::kG1b, Order::kData,
                 Level::kReadUncommitted);
}

TEST(Anomalies, G1cCircularInformationFlow) {
  expect_anomaly(at_once({{Op::append(x, 1), Op::read_list(y, {1})}, {Op::append(y, 1), Op::read_list(x, {1})}}),
                 Anomaly::kG1c, Order::kData, Level::kReadUncommitted);
  expect_anomaly(at_once({{Op::write(x, 1), Op::read(y, 1)}, {Op::write(y, 1), Op::read(x, 1)}}), Anomaly::kG1c,
                 Order::kData, Level::kReadUncommitted);
  // With a write dependency in it, which a third transaction tells of.
  expect_anomaly(at_once({{Op::append(x, 1), Op::read_list(y, {1})},
                          {Op::append(x, 2), Op::append(y, 1)},
                          {Op::read_list(x, {1, 2})}}),
                 Anomaly::kG1c, Order::kData, Level::kReadUncommitted);
}

TEST(Anomalies, GSingleReadSkew) {
  expect_anomaly(at_once({{Op::append(x, 1), Op::append(y, 1)}, {Op::read_list(x, {}), Op::read_list(y, {1})}}),
                 Anomaly::kGSingle, Order::kData, Level::kReadCommitted);
  expect_anomaly(at_once({{Op::write(x, 1), Op::write(y, 1)}, {Op::read_absent(x), Op::read(y, 1)}}), Anomaly::kGSingle,
                 Order::kData, Level::kReadCommitted);
}

TEST(Anomalies, GNonadjacentLongFork) {
  // Two writers; one reader sees the first's write only, the other the second's only: four edges, two of them rw, not
  // in a row.
  expect_anomaly(at_once({{Op::append(x, 1)},
                          {Op::append(y, 1)},
                          {Op::read_list(x, {1}), Op::read_list(y, {})},
                          {Op::read_list(x, {}), Op::read_list(y, {1})}}),
                 Anomaly::kGNonadjacent, Order::kData, Level::kReadCommitted);
}

TEST(Anomalies, G2WriteSkew) {
  expect_anomaly(at_once({{Op::read_list(x, {}), Op::append(y, 1)}, {Op::read_list(y, {}), Op::append(x, 1)}}),
                 Anomaly::kG2, Order::kData, Level::kSnapshot);
  expect_anomaly(at_once({{Op::read_absent(x), Op::write(y, 1)}, {Op::read_absent(y), Op::write(x, 1)}}), Anomaly::kG2,
                 Order::kData, Level::kSnapshot);
}

TEST(Anomalies, LostUpdate) {
  expect_anomaly(at_once({{Op::read_absent(x), Op::write(x, 1)}, {Op::read_absent(x), Op::write(x, 2)}}),
                 Anomaly::kLostUpdate, Order::kData, Level::kReadCommitted);
  expect_anomaly(at_once({{Op::read_list(x, {}), Op::append(x, 1)}, {Op::read_list(x, {}), Op::append(x, 2)}}),
                 Anomaly::kLostUpdate, Order::kData, Level::kReadCommitted);
}

TEST(Anomalies, InternalInconsistency) {
  const std::vector<Ops> wrong = {
      {Op::append(x, 1), Op::read_list(x, {})},                            // does not see its own append
      {Op::read_list(x, {}), Op::append(x, 1), Op::read_list(x, {2, 1})},  // something slipped in
      {Op::read_list(x, {}), Op::read_list(x, {2})},                       // not repeatable
      {Op::read_list(x, {1}), Op::append(x, 1)},                           // sees the future
      {Op::write(y, 1), Op::read_absent(y)},
      {Op::read_absent(y), Op::read(y, 2)},
      {Op::write(y, 1), Op::write(y, 3), Op::read(y, 1)},
      {Op::read(y, 1), Op::write(y, 1)},
  };
  for (const Ops& ops : wrong) {
    expect_anomaly(at_once({ops, {Op::append(x, 2), Op::write(y, 2)}}), Anomaly::kInternal, Order::kData,
                   Level::kReadCommitted);
  }
  expect_strict(at_once({{Op::read_list(x, {2}), Op::append(x, 1), Op::append(x, 3), Op::read_list(x, {2, 1, 3}),
                          Op::append(x, 4), Op::read_list(x, {2, 1, 3, 4})},
                         {Op::append(x, 2)},
                         {Op::read_absent(y), Op::write(y, 1), Op::write(y, 2), Op::read(y, 2)}}));
}

TEST(Anomalies, GarbageDuplicatesAndOrdersThatContradict) {
  expect_anomaly(at_once({{Op::read_list(x, {7})}}), Anomaly::kGarbageRead, Order::kData, std::nullopt);
  expect_anomaly(at_once({{Op::read(x, 7)}}), Anomaly::kGarbageRead, Order::kData, std::nullopt);
  expect_anomaly(at_once({{Op::append(x, 1)}, {Op::read_list(x, {1, 1})}}), Anomaly::kDuplicateElement, Order::kData,
                 std::nullopt);
  expect_anomaly(
      at_once({{Op::append(x, 1)}, {Op::append(x, 2)}, {Op::read_list(x, {1, 2})}, {Op::read_list(x, {2, 1})}}),
      Anomaly::kIncompatibleOrder, Order::kData, std::nullopt);
  expect_anomaly(at_once({{Op::read(x, 1), Op::write(x, 2)}, {Op::read(x, 2), Op::write(x, 1)}}),
                 Anomaly::kIncompatibleOrder, Order::kData, std::nullopt);
  History missing = at_once({{Op::write(x, 1)}, {Op::write(x, 2)}});
  missing.version_orders = {{x, {1}}};
  expect_anomaly(missing, Anomaly::kIncompatibleOrder, Order::kData, std::nullopt);
}

TEST(Orders, StaleReadsRefuteOnlyStrictSerializability) {
  expect_anomaly(in_sequence({{Op::append(x, 1)}, {Op::read_list(x, {})}}), Anomaly::kGSingle, Order::kRealTime,
                 Level::kSerializable);
  expect_anomaly(in_sequence({{Op::write(x, 1)}, {Op::write(x, 2)}, {Op::read(x, 1)}}), Anomaly::kGSingle,
                 Order::kRealTime, Level::kSerializable);
  // The newer version is known only from a read of it that had ended.
  expect_anomaly(
      in_sequence({{}, {Op::write(x, 2)}, {Op::read(x, 2)}, {Op::read(x, 1)}, {Op::read(x, 2)}, {Op::write(x, 1)}}),
      Anomaly::kG1c, Order::kRealTime, Level::kSerializable);
  // At the same time it would be right.
  expect_strict(at_once({{Op::append(x, 1)}, {Op::read_list(x, {})}}));
}

TEST(Orders, AppendsThatNobodyEverSawAgain) {
  // The read came after both appends had been acknowledged, and the second is not there.
  expect_anomaly(in_sequence({{Op::append(x, 1)}, {Op::append(x, 2)}, {Op::read_list(x, {1})}}), Anomaly::kGSingle,
                 Order::kRealTime, Level::kSerializable);
}

TEST(Orders, ProcessOrder) {
  History history = at_once({{Op::append(x, 1)}, {Op::read_list(x, {})}});
  history.transactions[1].process = history.transactions[0].process;
  expect_anomaly(history, Anomaly::kGSingle, Order::kProcess, Level::kSerializable);
  const Report unordered = must_check(history, {.process_order = false, .real_time_order = false});
  EXPECT_TRUE(unordered.findings.empty()) << unordered.to_string();
}

TEST(Orders, WriteAndReadCyclesInTime) {
  // y was appended to in the order of time, x against it.
  expect_anomaly(in_sequence({{Op::append(x, 1)}, {Op::append(x, 2)}, {Op::read_list(x, {2, 1})}}), Anomaly::kG0,
                 Order::kRealTime, Level::kSerializable);
  expect_anomaly(in_sequence({{Op::read_list(x, {1})}, {Op::append(x, 1)}}), Anomaly::kG1c, Order::kRealTime,
                 Level::kSerializable);
}

TEST(UnknownOutcomes, CountOnlyIfSomebodySawThem) {
  // Nobody saw it: whether it happened is open, and both are right.
  History history = in_sequence({{Op::append(x, 1), Op::append(y, 1)}, {Op::read_list(x, {})}, {Op::read_list(y, {})}});
  history.transactions[0].outcome = Outcome::kUnknown;
  history.transactions[0].end = kNever;
  expect_strict(history);
  // Seen in y, so it is not to be missed in x by who comes later.
  history.transactions[1].ops = {Op::read_list(y, {1})};
  history.transactions[2].ops = {Op::read_list(x, {})};
  expect_anomaly(history, Anomaly::kGSingle, Order::kRealTime, Level::kSerializable);
  EXPECT_EQ(must_check(history).unknown_counted, 1u);
  // It may take effect late: between two reads that come after it was given up.
  history.transactions[1].ops = {Op::read_list(x, {})};
  history.transactions[2].ops = {Op::read_list(x, {1})};
  expect_strict(history);
  // Unless the end of that time is known: a restart between the two.
  history.transactions[0].end = 5;
  expect_anomaly(history, Anomaly::kGSingle, Order::kRealTime, Level::kSerializable);
}

TEST(UnknownOutcomes, OneThatCountsMakesThoseCountThatItSaw) {
  History history = at_once({{Op::append(x, 1), Op::append(z, 1)},
                             {Op::read_list(x, {1}), Op::append(y, 1)},
                             {Op::read_list(y, {1})},
                             {Op::read_list(y, {1}), Op::read_list(z, {})}});
  history.transactions[0].outcome = history.transactions[1].outcome = Outcome::kUnknown;
  expect_anomaly(history, Anomaly::kGSingle, Order::kData, Level::kReadCommitted);
  EXPECT_EQ(must_check(history).unknown_counted, 2u);
  // A known order of versions tells of commits as well.
  History registers = at_once({{Op::write(x, 1)}, {Op::write(x, 2)}});
  registers.transactions[0].outcome = Outcome::kUnknown;
  registers.version_orders = {{x, {1, 2}}};
  expect_strict(registers);
  EXPECT_EQ(must_check(registers).unknown_counted, 1u);
}

TEST(Reports, NameTheTransactionsAndWhyTheyCannotBeOrdered) {
  const Report report =
      must_check(at_once({{Op::append(x, 1), Op::append(y, 1)}, {Op::read_list(x, {}), Op::read_list(y, {1})}}));
  ASSERT_EQ(report.findings.size(), 1u);
  EXPECT_EQ(report.findings[0].transactions.size(), 2u);
  const std::string text = report.to_string();
  for (const char* part : {"satisfies: read uncommitted, read committed\n", "G-single: a cycle of 2 transactions",
                           "T1 (process 1, committed, time 1 to 101): read k1 = [], read k2 = [1]",
                           "T1 before T0 (rw): T1 read the initial state of k1, and T0 wrote the later 1 of k1",
                           "T0 before T1 (wr): T1 read 1 of k2, which T0 wrote"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
}

TEST(Reports, RefuseHistoriesThatAreNone) {
  for (const auto& wrong :
       {at_once({{Op::append(x, 1)}, {Op::append(x, 1)}}), at_once({{Op::append(x, 1)}, {Op::write(x, 2)}}),
        at_once({{Op{OpKind::kWrite, x, {}}}}), at_once({{Op{OpKind::kReadRegister, x, {1, 2}}}})}) {
    EXPECT_TRUE(check(wrong).failed_with(Code::kInvalidArgument));
  }
  History backwards = at_once({{Op::append(x, 1)}});
  backwards.transactions[0].begin = 1000;
  EXPECT_TRUE(check(backwards).failed_with(Code::kInvalidArgument));
}

}  // namespace
}  // namespace kelda::history
