// Transactions through the Redis protocol over sockets (bare: lwIP's loopback), on real cores and the real engine,
// recorded and judged: strict serializability, also across power cuts.
#include "engine_support.h"
#include "net/net.h"
#include "server/server.h"
#include "sim/transactor.h"

namespace kelda::sim {
namespace {

using engine::blank_disk;
using history::Outcome;

constexpr runtime::TimeNs kPatienceNs = 30'000'000'000;

// A server on a database.
class Served {
 public:
  Served(runtime::Runtime& rt, Database& db)
      : listener_(*net::listen("127.0.0.1:0", rt.core_count())), server_(db, {}) {
    auto spawned = runtime::Core::current().spawn([this, &rt] {
      EXPECT_OK(server_.serve(rt, *listener_));
      served_.set();
    });
    EXPECT_OK(spawned);
  }
  ~Served() {
    server_.request_stop();
    served_.wait();
  }
  std::string address() const { return listener_->local(); }

 private:
  std::unique_ptr<net::Listener> listener_;
  server::Server server_;
  runtime::Event served_;
};

class Client {
 public:
  Client(Isolation& isolation, std::uint64_t seed) : transactor_(isolation, seed), dice_(seed) {}

  // Until the round trips are made, or the engine has failed.
  void run(const std::string& address, int round_trips) {
    while (round_trips > 0 && alive_) {
      auto connection = net::connect(address, runtime::now_ns() + kPatienceNs);
      ASSERT_OK(connection);
      RespClient resp(**connection);
      transactor_.connected();
      do {
        --round_trips;
      } while (carry_out(resp, *transactor_.next()) && round_trips > 0 && alive_);
    }
  }

  void read_all(const std::string& address, std::uint64_t rounds) {
    auto connection = net::connect(address, runtime::now_ns() + kPatienceNs);
    ASSERT_OK(connection);
    RespClient resp(**connection);
    for (std::uint64_t round = 0; round < rounds; ++round) {
      const auto read = transactor_.read_round(round);
      std::string request;
      (void)read->begin(request);
      ASSERT_OK(resp.send(request, runtime::now_ns() + kPatienceNs));
      const auto reply = resp.receive(runtime::now_ns() + kPatienceNs);
      ASSERT_OK(reply);
      EXPECT_EQ(read->answered({&*reply, 1}), Fate::kDone) << reply->to_string();
    }
  }

 private:
  // False when the connection is over. Now and then the client leaves without having waited for the answer.
  bool carry_out(RespClient& resp, Operation& operation) {
    const runtime::TimeNs deadline_ns = runtime::now_ns() + kPatienceNs;
    std::string requests;
    const std::size_t count = operation.begin(requests);
    bool connected = resp.send(requests, deadline_ns).has_value() && !dice_.one_in(60);
    std::vector<Reply> replies;
    while (connected && replies.size() < count) {
      auto reply = resp.receive(deadline_ns);
      connected = reply.has_value();
      EXPECT_FALSE(reply.failed_with(Code::kTimeout)) << operation.name();
      if (connected) replies.push_back(*std::move(reply));
    }
    if (!connected) return operation.lost(), false;
    const Fate fate = operation.answered(replies);
    if (fate == Fate::kUnknown) alive_ = false;
    return true;
  }

  Transactor transactor_;
  Prng dice_;
  bool alive_ = true;
};

struct Load {
  std::uint32_t clients_per_core = 5;
  int round_trips = 150;
  int lives = 1;
};

// In each life but the last the power may go.
void run_history(runtime::Runtime& rt, std::uint64_t seed, Load load, Isolation& isolation) {
  Prng random(seed);
  auto disk = blank_disk(32_MiB);
  for (int life = 1; life <= load.lives; ++life) {
    auto opened = engine::open_on(std::move(disk));
    ASSERT_OK(opened);
    isolation.recorder.settle();
    blockdev::FaultPlan plan{.seed = random.next(), .delay_min_ns = 1'000, .delay_max_ns = 300'000};
    if (life < load.lives) plan.crash_after_ops = opened->disk->op_count() + random.below(1'000);
    opened->disk->set_plan(plan);
    {
      Served served(rt, *opened->db);
      engine::in_parallel(rt, load.clients_per_core, [&](std::uint32_t i) {
        Client(isolation, seed * 1000 + i).run(served.address(), load.round_trips);
      });
      if (life == load.lives) Client(isolation, 0).read_all(served.address(), isolation.round() + 1);
    }
    const Result<> closed = opened->db->close();
    EXPECT_TRUE(closed || opened->disk->dead());
    disk = opened->disk->crash(static_cast<blockdev::Survival>(random.below(3)), random.next());
  }
  EXPECT_EQ(isolation.verdict(), "");
}

void run_on_sockets(std::uint64_t seed, Load load) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  Isolation isolation;
  engine::on_cores(2, [&](runtime::Runtime& rt) {
    ASSERT_OK(net::start({.needs_device = false}));
    run_history(rt, seed, load, isolation);
    net::stop();
  });
  EXPECT_GT(isolation.recorder.count(Outcome::kOk), 100u);
  if (load.clients_per_core < Load().clients_per_core) return;
  // So many that WATCH had to be looked at, and that some left.
  EXPECT_GT(isolation.recorder.count(Outcome::kFailed), 10u);
  EXPECT_GT(isolation.recorder.count(Outcome::kUnknown), 0u);
}

TEST(IsolationResp, ClientsOnSocketsSeeStrictlySerializableHistories) {
  run_on_sockets(1, {});
}

TEST(IsolationResp, AlsoAcrossPowerCuts) {
  for (std::uint64_t seed = 10; seed < 13 && !::testing::Test::HasFailure(); ++seed) run_on_sockets(seed, {.lives = 3});
}

// The long run: CTest's soak configuration.
TEST(IsolationResp, DISABLED_Soak) {
  for (std::uint64_t seed = 100; seed < 600 && !::testing::Test::HasFailure(); ++seed)
    run_on_sockets(seed,
                   {.clients_per_core = 1 + static_cast<std::uint32_t>(seed % 8), .round_trips = 200, .lives = 4});
}

}  // namespace
}  // namespace kelda::sim
