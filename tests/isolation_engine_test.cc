// Random transactions through the public interface, recorded and judged: strict serializability, also across power
// cuts.
#include <map>

#include "common/prng.h"
#include "engine_support.h"
#include "isolation_recorder.h"
#include "runtime/core_sim.h"

namespace kelda::engine {
namespace {

using history::Key;
using history::Level;
using history::Outcome;
using sim::Recorder;
using sim::Recording;
using testing::decode_values;
using testing::encode_values;
using testing::RecordedKeys;

// What is fatal to a client: the disk is dead.
bool is_fatal(const Error& error) {
  return error.code() != Code::kConflict;
}

class EngineClient {
 public:
  EngineClient(Database& db, Tree tree, Recorder& recorder, std::uint64_t seed)
      : db_(db), tree_(tree), recorder_(recorder), process_(recorder.new_process()), random_(seed) {}

  // Until the rounds are done or the disk is dead.
  void run(int rounds) {
    for (int i = 0; i < rounds && alive_; ++i) {
      if (random_.one_in(5)) {
        read_outside();
      } else {
        Prng plan(random_.next());
        // After a conflict the same again, with new values, and after a pause as programs should make.
        for (int attempt = 0; alive_ && !run_transaction(plan); ++attempt) pause(attempt);
      }
      if (random_.one_in(10)) runtime::Core::current().yield();
    }
  }

  static void read_all(Database& db, Tree tree, Recorder& recorder) {
    Recording recording(recorder, recorder.new_process());
    auto txn = db.begin();
    for (Key key = 0; key < RecordedKeys().count(); ++key) {
      std::string value;
      auto found = txn->get(tree, RecordedKeys::name(key), value);
      ASSERT_OK(found);
      recording.read(RecordedKeys().is_list(key), key, *found ? decode_values(value) : std::vector<history::Value>{});
    }
    ASSERT_OK(txn->commit());
    recording.end(Outcome::kOk);
  }

 private:
  void pause(int attempt) {
    const runtime::TimeNs longest = 100'000ull << std::min(attempt, 8);
    runtime::Core::current().sleep_until(runtime::now_ns() + random_.below(longest));
  }

  void read_outside() {
    const Key key = random_.below(keys_.count());
    Recording recording(recorder_, process_);
    std::string value;
    Lsn lsn;
    const bool waits_itself = random_.one_in(2);
    auto found = db_.get(tree_, RecordedKeys::name(key), value, waits_itself ? nullptr : &lsn);
    if (found && !waits_itself) {
      if (random_.one_in(2)) runtime::Core::current().yield();
      if (auto durable = db_.wait_durable(lsn); !durable) found = durable.error();
    }
    if (!found) {
      alive_ = !is_fatal(found.error());
      return;
    }
    recording.read(keys_.is_list(key), key, *found ? decode_values(value) : std::vector<history::Value>{});
    recording.end(Outcome::kOk);
  }

  // False: a conflict.
  bool run_transaction(Prng plan) {
    Recording recording(recorder_, process_);
    auto txn = db_.begin();
    const Result<> done = operate(*txn, recording, plan);
    if (!done) {
      alive_ = !is_fatal(done.error());
      if (alive_ && random_.one_in(2)) alive_ = txn->roll_back().has_value();
      return false;
    }
    if (plan.one_in(8)) {
      if (auto undone = txn->roll_back(); !undone) alive_ = false;
      return true;
    }
    if (commit(*txn, plan.one_in(2))) {
      recording.end(Outcome::kOk);
    } else {
      recording.end(Outcome::kUnknown);
      alive_ = false;
    }
    return true;
  }

  bool commit(Transaction& txn, bool waits_itself) {
    if (waits_itself) return txn.commit().has_value();
    const auto lsn = txn.commit_no_wait();
    if (!lsn) return false;
    runtime::Core::current().yield();
    return db_.wait_durable(*lsn).has_value();
  }

  Result<> operate(Transaction& txn, Recording& recording, Prng& plan) {
    std::uint64_t savepoint = 0;
    std::optional<std::size_t> saved_ops;
    if (plan.one_in(6)) TRY(lock_first(txn, plan));
    for (std::uint64_t n = plan.between(1, 6); n > 0; --n) {
      TRY(operate_once(txn, recording, plan));
      if (plan.one_in(4)) runtime::Core::current().yield();
      if (plan.one_in(10)) {
        savepoint = TRY(txn.savepoint());
        saved_ops = recording.op_count();
      } else if (saved_ops && plan.one_in(4)) {
        TRY(txn.roll_back_to(savepoint));
        recording.undo_to(*saved_ops);
      }
    }
    return {};
  }

  Result<> lock_first(Transaction& txn, Prng& plan) {
    std::vector<std::string> names;
    for (int i = 0; i < 3; ++i) names.push_back(RecordedKeys::name(plan.below(keys_.count())));
    const std::vector<std::string_view> views(names.begin(), names.end());
    return txn.lock_keys(tree_, views);
  }

  Result<> operate_once(Transaction& txn, Recording& recording, Prng& plan) {
    const Key key = plan.below(keys_.count());
    const bool is_list = keys_.is_list(key);
    switch (plan.below(12)) {
      case 0:
        return scan(txn, recording, plan.one_in(2));
      case 1:
      case 2:
      case 3:
      case 4:
        (void)TRY(read(txn, recording, key, false));
        return {};
      case 5:
      case 6:
        if (!is_list) return write(txn, recording, key, {});  // blindly
        [[fallthrough]];
      default:
        return write(txn, recording, key, TRY(read(txn, recording, key, plan.one_in(2))));
    }
  }

  Result<std::vector<history::Value>> read(Transaction& txn, Recording& recording, Key key, bool for_update) {
    std::string value;
    const std::string name = RecordedKeys::name(key);
    const bool found = TRY(for_update ? txn.get_for_update(tree_, name, value) : txn.get(tree_, name, value));
    std::vector<history::Value> seen;
    if (found) seen = decode_values(value);
    recording.read(keys_.is_list(key), key, seen);
    return seen;
  }

  // A list: appends to what it held.
  Result<> write(Transaction& txn, Recording& recording, Key key, std::vector<history::Value> held) {
    const history::Value value = recorder_.new_value();
    if (!keys_.is_list(key)) held.clear();
    held.push_back(value);
    // Before it is known to have worked: an error must not make it a value that nobody wrote.
    recording.wrote(keys_.is_list(key), key, value);
    (void)TRY(txn.put(tree_, RecordedKeys::name(key), encode_values(key, held)));
    return {};
  }

  // Sees which keys there are and which are not.
  Result<> scan(Transaction& txn, Recording& recording, bool backward) {
    auto scan = TRY(txn.scan(tree_));
    std::map<std::string, std::vector<history::Value>, std::less<>> seen;
    bool more = TRY(backward ? scan->seek_back("") : scan->seek(""));
    while (more) {
      seen[std::string(scan->key())] = decode_values(TRY(scan->value()));
      more = TRY(backward ? scan->prev() : scan->next());
    }
    for (Key key = 0; key < keys_.count(); ++key)
      recording.read(keys_.is_list(key), key, seen[RecordedKeys::name(key)]);
    return {};
  }

  Database& db_;
  Tree tree_;
  Recorder& recorder_;
  const std::uint32_t process_;
  Prng random_;
  RecordedKeys keys_;
  bool alive_ = true;
};

struct Load {
  std::uint32_t clients_per_core = 3;
  int rounds = 12;
};

// Runs the clients until they are done or the disk is dead.
void run_clients(runtime::Runtime& rt, Database& db, Tree tree, Recorder& recorder, std::uint64_t seed, Load load) {
  in_parallel(rt, load.clients_per_core,
              [&](std::uint32_t i) { EngineClient(db, tree, recorder, seed * 1000 + i).run(load.rounds); });
}

// Three times: clients, and then a power cut, a kill or a clean end; what was acknowledged then is there afterwards.
void run_history(runtime::Runtime& rt, std::uint64_t seed, Load load, Recorder& recorder) {
  Prng random(seed);
  auto disk = blank_disk(24_MiB);
  for (int life = 0; life < 3; ++life) {
    auto opened = open_on(std::move(disk));
    ASSERT_OK(opened);
    const auto tree = opened->db->tree("t", true);
    ASSERT_OK(tree);
    recorder.settle();
    blockdev::FaultPlan plan{
        .seed = random.next(), .delay_min_ns = 1'000, .delay_max_ns = random.below(300'000) + 2'000};
    if (random.one_in(4)) plan.delay_min_ns = plan.delay_max_ns = 0;
    if (!random.one_in(4))
      plan.crash_after_ops = opened->disk->op_count() + random.below(60 * static_cast<std::uint64_t>(load.rounds));
    opened->disk->set_plan(plan);
    run_clients(rt, *opened->db, *tree, recorder, random.next(), load);
    const auto stats = opened->db->stats();
    EXPECT_LT(stats.conflicts, 200 * (stats.commits + 50)) << "hardly anybody came through";
    if (!opened->disk->dead() && random.one_in(2)) {
      const Result<> closed = opened->db->close();
      EXPECT_TRUE(closed || opened->disk->dead()) << closed.error().to_string();
    }
    const auto survival = static_cast<blockdev::Survival>(random.below(3));
    disk = opened->disk->crash(survival, random.next());
  }
  auto last = open_on(std::move(disk));
  ASSERT_OK(last);
  recorder.settle();
  const auto tree = last->db->tree("t", true);
  ASSERT_OK(tree);
  EngineClient::read_all(*last->db, *tree, recorder);
  testing::expect_level(recorder.history(), Level::kStrictSerializable);
  EXPECT_OK(last->db->close());
}

void simulate_history(std::uint64_t seed, Load load) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  Recorder recorder;
  auto ran = runtime::run_simulated({.seed = seed, .core_count = 3, .stray_unparks = seed % 2 == 0},
                                    [&](runtime::Runtime& rt) {
                                      run_history(rt, seed, load, recorder);
                                      return 0;
                                    });
  ASSERT_TRUE(ran.has_value()) << ran.error().to_string();
  EXPECT_GT(recorder.count(Outcome::kOk), 20u);
}

TEST(IsolationEngine, SimulatedHistoriesAreStrictlySerializable) {
  for (std::uint64_t seed = 1; seed <= 25 && !::testing::Test::HasFailure(); ++seed) simulate_history(seed, {});
}

TEST(IsolationEngine, HistoriesOnRealCoresAreStrictlySerializable) {
  Recorder recorder;
  on_cores(2, [&](runtime::Runtime& rt) { run_history(rt, 1, {.clients_per_core = 4, .rounds = 30}, recorder); });
  EXPECT_GT(recorder.count(Outcome::kOk), 100u);
}

// The long run: CTest's soak configuration.
TEST(IsolationEngine, DISABLED_Soak) {
  for (std::uint64_t seed = 100; seed < 2'000 && !::testing::Test::HasFailure(); ++seed) {
    simulate_history(seed, {.clients_per_core = 1 + static_cast<std::uint32_t>(seed % 5), .rounds = 30});
    if (seed % 20 != 0) continue;
    SCOPED_TRACE("real cores, seed " + std::to_string(seed));
    Recorder recorder;
    on_cores(2, [&](runtime::Runtime& rt) { run_history(rt, seed, {.clients_per_core = 4, .rounds = 200}, recorder); });
    std::printf("seed %lu: all well so far\n", static_cast<unsigned long>(seed));
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace kelda::engine
