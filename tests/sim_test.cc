// The simulator itself: the same seed is the same history, its judges bite, and a few dozen histories pass.
#include <gtest/gtest.h>

#include <memory>

#include "runtime/core_sim.h"
#include "sim/minimise.h"
#include "sim/operation.h"
#include "sim/simulation.h"
#include "sim/transactor.h"
#include "sim/world.h"

namespace kelda::sim {
namespace {

std::unique_ptr<Report> run(std::uint64_t seed, const Overrides& overrides) {
  auto report = std::make_unique<Report>();
  run_simulation(make_config(seed, overrides), *report);
  return report;
}

Overrides with_faults(std::string_view faults, double seconds) {
  Overrides overrides;
  overrides.swarm = false;
  overrides.seconds = seconds;
  overrides.faults = *FaultSet::parse(faults);
  return overrides;
}

std::string kind_of(const Report& report) {
  return report.kind.data();
}

TEST(SimDeterminism, TheSameSeedIsTheSameHistory) {
  Overrides overrides;
  overrides.seconds = 1;
  const auto first = run(11, overrides), second = run(11, overrides), other = run(12, overrides);
  EXPECT_NE(first->trace_hash, 0u);
  EXPECT_EQ(first->trace_hash, second->trace_hash);
  EXPECT_EQ(first->operations, second->operations);
  EXPECT_EQ(first->steps, second->steps);
  EXPECT_NE(first->trace_hash, other->trace_hash);
}

// Each kind of fault alone, long enough to take effect.
class SimFault : public ::testing::TestWithParam<const char*> {};
TEST_P(SimFault, AloneBreaksNoPromise) {
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    const auto report = run(seed, with_faults(GetParam(), 2));
    EXPECT_FALSE(report->failed) << "seed " << seed << ": " << report->kind.data() << ": " << report->failure.data();
    EXPECT_GT(report->operations, 0u);
  }
}
INSTANTIATE_TEST_SUITE_P(Each, SimFault,
                         ::testing::Values("none", "crash", "reorder", "torn", "kill", "restart", "recovery-cut",
                                           "clone", "grow", "read-error", "write-error", "flush-error",
                                           "permanent-error", "slow", "stuck", "full", "latent", "bit-rot", "misdirect",
                                           "phantom", "cut", "vanish", "delay", "loss", "clock", "memory", "stray"),
                         [](const auto& parameter) {
                           std::string name = parameter.param;
                           std::erase(name, '-');
                           return name;
                         });

// A disk that acknowledges flushes and does not flush: after a power cut acknowledged writes are gone, and we say so.
TEST(SimBites, ADiskThatLiesAboutFlushesIsFoundOut) {
  const auto report = run(1, with_faults("crash,lying-flush", 3));
  ASSERT_TRUE(report->failed);
  EXPECT_GT(report->failed_at_ns, 0u);
  EXPECT_NE(report->failure_text().find("acknowledged"), std::string_view::npos) << report->failure_text();
}

TEST(SimBites, RotThatNobodyAdmitsToIsFoundOut) {
  const auto report = run(1, with_faults("rotten-reads,kill", 3));
  ASSERT_TRUE(report->failed);
  EXPECT_NE(report->failure_text().find("checksum"), std::string_view::npos) << report->failure_text();
}

TEST(SimBites, ASmallerHistoryFailsInTheSameWay) {
  const Overrides given = with_faults("crash,lying-flush,clock,cut", 3);
  const auto failed = run(1, given);
  ASSERT_TRUE(failed->failed);
  const auto found = minimise(make_config(1, given), given, *failed, 30,
                              [&](const Overrides& smaller) { return kind_of(*run(1, smaller)) == kind_of(*failed); });
  EXPECT_EQ(kind_of(*run(1, found.overrides)), kind_of(*failed));
  EXPECT_LT(found.overrides.faults->kinds().size(), given.faults->kinds().size());
  EXPECT_TRUE(found.overrides.faults->has(FaultKind::kLyingFlush));
  EXPECT_LE(*found.overrides.seconds, *given.seconds);
}

// The models, fed by hand: whatever a server could do wrong.
class Judge : public ::testing::Test {
 protected:
  // Runs the body in virtual time and returns the kind of the violation, or "".
  std::string verdict(std::function<void(World&)> body) {
    *report_ = {};
    World world(Config{}, *report_);
    const auto ran = runtime::run_simulated({}, [&](runtime::Runtime&) {
      body(world);
      return 0;
    });
    EXPECT_TRUE(ran.has_value());
    return kind_of(*report_);
  }
  static Reply text(std::string value) {
    Reply reply;
    reply.type = '$';
    reply.text = std::move(value);
    return reply;
  }
  static Reply balances(const std::string& first, const std::string& second) {
    Reply both;
    both.type = '*';
    both.items = {text(first), text(second)};
    return both;
  }
  static Reply nil() {
    Reply reply;
    reply.null = true;
    return reply;
  }
  // Somebody reads all keys of round 0 at one moment and is shown this for list 0, and nothing else.
  static void show_list(Isolation& isolation, const Reply& shown) {
    Transactor reader(isolation, 1);
    const auto read = reader.read_round(0);
    std::string request;
    EXPECT_EQ(read->begin(request), 1u);
    Reply all;
    all.type = '*';
    all.items.assign(Isolation::kKeysARound, nil());
    all.items[0] = shown;
    EXPECT_EQ(read->answered({&all, 1}), Fate::kDone);
  }
  std::unique_ptr<Report> report_ = std::make_unique<Report>();
};

std::string verdict_on(World& world, Register& target, std::vector<Reply> found) {
  target.judge(target.mark(), found, true, false, world.wall, world.trace);
  return {};
}

TEST_F(Judge, ARegisterKnowsLostInventedStaleAndHalfWrites) {
  const auto written = [](World& world, Register& target, int versions) {
    for (int i = 0; i < versions; ++i) {
      target.invoke({.present = true, .bytes = 100});
      target.acknowledge(world.trace);
    }
  };
  EXPECT_EQ(verdict([&](World& world) {
              Register target(0, 0, 2);
              written(world, target, 2);
              verdict_on(world, target, {text(target.value(2)), text(target.value(2))});
            }),
            "");
  EXPECT_EQ(verdict([&](World& world) {
              Register target(0, 0, 1);
              written(world, target, 1);
              verdict_on(world, target, {nil()});
            }),
            "wrong value");
  EXPECT_EQ(verdict([&](World& world) {
              Register target(0, 0, 1);
              written(world, target, 2);
              verdict_on(world, target, {text(target.value(1))});
            }),
            "wrong value");
  EXPECT_EQ(verdict([&](World& world) {
              Register target(0, 0, 1);
              written(world, target, 1);
              std::string rotten = target.value(1);
              rotten[70] = static_cast<char>(rotten[70] ^ 1);
              verdict_on(world, target, {text(rotten)});
            }),
            "wrong value");
  EXPECT_EQ(verdict([&](World& world) {
              Register target(0, 0, 2);
              written(world, target, 1);
              target.invoke({.present = true, .bytes = 100});
              target.lose();
              verdict_on(world, target, {text(target.value(1)), text(target.value(2))});
            }),
            "half visible");
  // Of unknown outcome, found not done, and there after all.
  EXPECT_EQ(verdict([&](World& world) {
              Register target(0, 0, 1);
              written(world, target, 1);
              target.invoke({.present = true, .bytes = 100});
              target.lose();
              verdict_on(world, target, {text(target.value(1))});
              EXPECT_FALSE(world.trace.failed());
              verdict_on(world, target, {text(target.value(2))});
            }),
            "wrong value");
  EXPECT_EQ(verdict([&](World& world) {
              Register target(0, 0, 1);
              target.invoke({.present = true, .bytes = 100});
              target.refuse();
              verdict_on(world, target, {text(target.value(1))});
            }),
            "wrong value");
}

TEST_F(Judge, ARegisterKnowsWhenItExpires) {
  const auto expiring = [](World& world, std::int64_t in_ms, std::int64_t wait_ms, bool shown) {
    Register target(0, 0, 1);
    target.invoke({.present = true, .bytes = 20, .expires_at_ms = WallClock::now_ms() + in_ms});
    target.acknowledge(world.trace);
    runtime::Core::current().sleep_until(runtime::now_ns() + static_cast<std::uint64_t>(wait_ms) * kMillisecondNs);
    verdict_on(world, target, {shown ? text(target.value(1)) : nil()});
  };
  EXPECT_EQ(verdict([&](World& world) { expiring(world, 100, 50, true); }), "");
  EXPECT_EQ(verdict([&](World& world) { expiring(world, 100, 150, false); }), "");
  EXPECT_EQ(verdict([&](World& world) { expiring(world, 100, 50, false); }), "wrong value");
  EXPECT_EQ(verdict([&](World& world) { expiring(world, 100, 150, true); }), "wrong value");
}

// Once a disk has swallowed a write, an old count is no reproach.
TEST_F(Judge, CountersAreNotJudgedAfterAPhantomWrite) {
  const auto twice = [](World& world, bool writes_lost) {
    world.writes_lost = writes_lost;
    for (int i = 0; i < 2; ++i) {
      WatchedRead read{world, world.counters[0]};
      const auto write = make_watched_write(read);
      std::string requests;
      const std::size_t count = write->begin(requests);
      std::vector<Reply> replies(count);
      replies.back().type = '*';
      replies.back().items = {text("OK")};
      EXPECT_EQ(write->answered(replies), Fate::kDone);
    }
  };
  EXPECT_EQ(verdict([&](World& world) { twice(world, false); }), "count twice");
  EXPECT_EQ(verdict([&](World& world) { twice(world, true); }), "");
}

TEST_F(Judge, CountersListsAndAccounts) {
  EXPECT_EQ(verdict([&](World& world) {
              Counter counter(0);
              counter.acknowledge(counter.invoke(), 1, world.trace);
              counter.acknowledge(counter.invoke(), 1, world.trace);
            }),
            "count twice");
  EXPECT_EQ(verdict([&](World& world) {
              Counter counter(0);
              counter.acknowledge(counter.invoke(), 1, world.trace);
              counter.settle(text("0"), world.trace);
            }),
            "wrong count");
  EXPECT_EQ(verdict([&](World& world) {
              List list(0);
              const std::string a = list.new_token(1), b = list.new_token(2);
              list.acknowledge(list.key(), a, 12, world.trace);
              list.judge(list.key(), 0, text(a + b), world.trace);
              list.judge(list.key(), 24, text(b + a), world.trace);
            }),
            "list changed");
  EXPECT_EQ(verdict([&](World& world) {
              List list(0);
              const std::string a = list.new_token(1), b = list.new_token(2);
              list.acknowledge(list.key(), b, 12, world.trace);
              list.settle(list.key(), text(a), world.trace);
            }),
            "lost append");
  EXPECT_EQ(verdict([&](World& world) {
              List list(0);
              list.settle(list.key(), text("99-00000099;"), world.trace);
            }),
            "invented append");
  EXPECT_EQ(verdict([&](World& world) {
              Bank bank(2, false);
              bank.judge(bank.epoch(), balances("-5", "4"), world.trace);
            }),
            "half a transfer");
  // Where a command may fail alone, the transfer under way decides.
  const auto seen_under_way = [&](Bank::Outcome outcome) {
    return verdict([&](World& world) {
      Bank bank(2, true);
      const std::uint64_t transfer = bank.begin_transfer();
      bank.judge(bank.epoch(), balances("-5", "4"), world.trace);
      EXPECT_FALSE(world.trace.failed());
      bank.end_transfer(transfer, outcome, world.trace);
    });
  };
  EXPECT_EQ(seen_under_way(Bank::Outcome::kWhole), "half a transfer");
  EXPECT_EQ(seen_under_way(Bank::Outcome::kHalf), "");
}

// A transaction whose answer was lost appended to two lists, and only one of them shows it.
TEST_F(Judge, HalfATransactionThatWasLost) {
  Isolation isolation;
  Recording writer(isolation.recorder, isolation.recorder.new_process());
  writer.wrote(true, 0, isolation.recorder.new_value());
  writer.wrote(true, 2, isolation.recorder.new_value());
  writer.end(history::Outcome::kUnknown);
  show_list(isolation, text("1 "));
  EXPECT_NE(isolation.verdict(false), "");
  EXPECT_EQ(isolation.verdict(true), "") << "the other command may have failed alone";
}

// A transaction appended 1 to an empty list and ended in this way; then somebody is shown the list.
TEST_F(Judge, HistoriesOfTransactions) {
  const auto anomalies = [](history::Outcome outcome, const Reply& shown) {
    Isolation isolation;
    Recording writer(isolation.recorder, isolation.recorder.new_process());
    writer.wrote(true, 0, isolation.recorder.new_value());
    writer.end(outcome);
    show_list(isolation, shown);
    return isolation.verdict();
  };
  using enum history::Outcome;
  EXPECT_EQ(anomalies(kOk, text("1 ")), "");
  EXPECT_NE(anomalies(kOk, nil()).find("realtime"), std::string::npos);
  EXPECT_EQ(anomalies(kFailed, nil()), "");
  EXPECT_NE(anomalies(kFailed, text("1 ")).find("G1a"), std::string::npos);
  EXPECT_EQ(anomalies(kUnknown, nil()), "");
  EXPECT_EQ(anomalies(kUnknown, text("1 ")), "");
  EXPECT_NE(anomalies(kOk, text("1 7 ")).find("garbage"), std::string::npos);
  EXPECT_NE(anomalies(kOk, text("1")).find("garbage"), std::string::npos);
}

}  // namespace
}  // namespace kelda::sim
