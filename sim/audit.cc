#include "sim/audit.h"

#include <map>

#include "engine/check.h"
#include "sim/transactor.h"

namespace kelda::sim {

namespace {

constexpr runtime::TimeNs kPatienceNs = 60 * kSecondNs;

Error error_of(const Reply& reply) {
  return Error(Code::kFailed, reply.text);
}

class Auditor {
 public:
  Auditor(World& world, net::PipeConnection& connection) : world_(world), resp_(connection) {}

  Result<> run() {
    TRY(read_registers());
    TRY(read_shared());
    TRY(read_transactional());
    if (!world_.damaged) TRY(look_for_strangers());
    return {};
  }

 private:
  Result<Reply> call(std::initializer_list<std::string_view> words) {
    return resp_.call(words, runtime::now_ns() + kPatienceNs);
  }
  Result<Reply> call(const std::vector<std::string>& words) {
    std::string request;
    append_command(request, words);
    const runtime::TimeNs deadline_ns = runtime::now_ns() + kPatienceNs;
    TRY(resp_.send(request, deadline_ns));
    return resp_.receive(deadline_ns);
  }
  // True if the reply can be judged: an error of a damaged disk cannot.
  Result<bool> usable(const Reply& reply) {
    if (!reply.is_error()) return true;
    if (world_.damaged && !reply.is_error("MISCONF")) return false;
    return error_of(reply);
  }

  Result<> read_registers() {
    for (auto& own : world_.registers) {
      for (Register& target : own) {
        const Register::Mark mark = target.mark();
        std::vector<std::string> words{"MGET"};
        words.insert(words.end(), target.keys().begin(), target.keys().end());
        const Reply reply = TRY(call(words));
        if (!TRY(usable(reply))) continue;
        target.judge(mark, reply.items, true, world_.writes_lost, world_.wall, world_.trace);
        for (std::size_t i = 0; i < target.keys().size(); ++i) expect(target.keys()[i], reply.items[i]);
      }
    }
    return {};
  }

  Result<> read_shared() {
    for (Counter& counter : world_.counters) {
      const Reply reply = TRY(call({"GET", counter.key()}));
      if (TRY(usable(reply)) && !world_.writes_lost) counter.settle(reply, world_.trace);
      expect(counter.key(), reply);
    }
    for (List& list : world_.lists) {
      for (const std::string& key : list.keys()) {
        const Reply reply = TRY(call({"GET", key}));
        if (TRY(usable(reply)) && !world_.writes_lost) list.settle(key, reply, world_.trace);
        expect(key, reply);
      }
    }
    std::vector<std::string> words{"MGET"};
    words.insert(words.end(), world_.bank.keys().begin(), world_.bank.keys().end());
    const Reply reply = TRY(call(words));
    if (!TRY(usable(reply))) return {};
    if (!world_.writes_lost) world_.bank.judge(world_.bank.epoch(), reply, world_.trace);
    world_.bank.settle(reply);
    for (std::size_t i = 0; i < reply.items.size(); ++i) expect(world_.bank.keys()[i], reply.items[i]);
    return {};
  }

  // What was under way has happened or not.
  Result<> read_transactional() {
    Isolation& isolation = world_.isolation;
    isolation.recorder.settle();
    Transactor reader(isolation, 0);
    for (std::uint64_t round = 0; round <= isolation.round(); ++round) {
      const auto read = reader.read_round(round);
      std::string request;
      read->begin(request);
      const runtime::TimeNs deadline_ns = runtime::now_ns() + kPatienceNs;
      TRY(resp_.send(request, deadline_ns));
      const Reply reply = TRY(resp_.receive(deadline_ns));
      if (!TRY(usable(reply))) continue;
      (void)read->answered({&reply, 1});
      const auto keys = Isolation::keys_of(round);
      for (std::size_t i = 0; i < keys.size() && i < reply.items.size(); ++i)
        expect(Isolation::name(keys[i]), reply.items[i]);
    }
    return {};
  }

  void expect(const std::string& key, const Reply& found) {
    if (!found.null && !found.is_error()) expected_[key] = found.text.size();
  }

  // A walk through all keys finds those that were read one by one, but for what has expired meanwhile, and no other.
  Result<> look_for_strangers() {
    std::string from = "-";
    std::map<std::string, std::size_t> there;
    while (true) {
      const Reply reply = TRY(call({"KELDA.RANGE", from, "+", "LIMIT", "20"}));
      if (reply.is_error()) return error_of(reply);
      for (std::size_t i = 0; i + 1 < reply.items.size(); i += 2)
        there[reply.items[i].text] = reply.items[i + 1].text.size();
      if (reply.items.size() < 40) break;
      from = "(" + reply.items[reply.items.size() - 2].text;
    }
    for (const auto& [key, bytes] : there) {
      const auto found = expected_.find(key);
      if (found != expected_.end() && found->second == bytes) continue;
      world_.trace.fail(
          "stranger", fmt::format("a walk through all keys finds {} with {} bytes; a read of it {}", key, bytes,
                                  found == expected_.end() ? "finds nothing" : fmt::format("{} bytes", found->second)));
    }
    if (world_.config.expiry_percent > 0) return {};
    for (const auto& [key, bytes] : expected_) {
      if (!there.contains(key))
        world_.trace.fail("missed by a walk",
                          fmt::format("a walk through all keys does not find {}, which a read finds", key));
    }
    const Reply size = TRY(call({"DBSIZE"}));
    if (size.is_error()) return error_of(size);
    if (size.type != ':' || size.integer != static_cast<std::int64_t>(there.size())) {
      world_.trace.fail("wrong size",
                        fmt::format("DBSIZE says {}, a walk finds {} keys", size.to_string(), there.size()));
    }
    return {};
  }

  World& world_;
  RespClient resp_;
  std::map<std::string, std::size_t> expected_;
};

}  // namespace

Result<> audit(World& world, Instance& instance) {
  auto connection = TRY(instance.listener().dial());
  ++world.report().audits;
  return Auditor(world, *connection).run();
}

bool check_image(World& world, const blockdev::MemoryDevice& disk, std::string_view when, bool expect_clean) {
  const auto nothing = [](std::uint64_t, std::uint64_t) {};
  auto checked = engine::check_disk(disk.snapshot(blockdev::Survival::kAll),
                                    {.memory_bytes = world.config.engine_memory_bytes}, nothing);
  if (!checked) {
    if (!world.damaged && !checked.failed_with(Code::kBlankDisk)) {
      world.trace.fail("check failed", fmt::format("{}: {}", when, checked.error().to_string()));
    }
    return false;
  }
  if (world.damaged) return true;
  if (!checked->sound())
    world.trace.fail("not sound",
                     fmt::format("{}: {} ({} problems)", when, checked->problems[0], checked->problems.size()));
  if (expect_clean && !checked->was_clean)
    world.trace.fail("not clean", fmt::format("{}: the disk is not marked as closed cleanly", when));
  return true;
}

}  // namespace kelda::sim
