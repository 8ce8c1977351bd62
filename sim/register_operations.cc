// Reads and writes of registers.
#include "sim/register_operations.h"

#include <algorithm>

namespace kelda::sim {

namespace {

// The engine failed, or went down: what it was about to do may be found after the restart.
bool outcome_unknown(const Reply& reply) {
  return reply.is_error("MISCONF");
}

class RegisterWrite final : public Operation {
 public:
  RegisterWrite(World& world, Register& target, Version version, bool as_multi)
      : world_(world), target_(target), version_(version), as_multi_(as_multi) {
    version_.may_be_partial = world_.commands_may_fail && version_.present && as_multi_ && target_.keys().size() > 1;
  }

  std::size_t begin(std::string& requests) override {
    target_.invoke(version_);
    const std::string value = target_.value(target_.latest_number());
    const auto& keys = target_.keys();
    if (!version_.present) {
      std::vector<std::string> words{"DEL"};
      words.insert(words.end(), keys.begin(), keys.end());
      append_command(requests, words);
      return 1;
    }
    if (!as_multi_) {
      std::vector<std::string> words{"MSET"};
      for (const std::string& key : keys) words.insert(words.end(), {key, value});
      append_command(requests, words);
      return 1;
    }
    const bool alone = keys.size() == 1;
    if (!alone) append_command(requests, {"MULTI"});
    for (const std::string& key : keys) {
      if (version_.expires_at_ms != 0) {
        append_command(requests, {"SET", key, value, "PXAT", std::to_string(version_.expires_at_ms)});
      } else {
        append_command(requests, {"SET", key, value});
      }
    }
    if (!alone) append_command(requests, {"EXEC"});
    return alone ? 1 : keys.size() + 2;
  }

  Fate answered(std::span<const Reply> replies) override {
    const Reply& last = replies.back();
    if (outcome_unknown(last)) return lost(), Fate::kUnknown;
    if (last.is_error() || last.null) return end(Fate::kRefused);
    if (last.type != '*') return end(Fate::kDone);
    std::vector<bool> done;
    for (const Reply& item : last.items) done.push_back(!item.is_error());
    if (done.size() != target_.keys().size()) {
      world_.trace.fail("wrong reply", fmt::format("EXEC of {} commands: {}", target_.keys().size(), last.to_string()));
      return end(Fate::kDone);
    }
    if (std::ranges::all_of(done, [](bool d) { return d; })) return end(Fate::kDone);
    if (std::ranges::none_of(done, [](bool d) { return d; })) return end(Fate::kRefused);
    target_.acknowledge_in_part(done);
    return Fate::kRefused;
  }

  void lost() override { target_.lose(); }
  std::string name() const override {
    const std::string what = !version_.present ? "DEL"
                             : as_multi_       ? (target_.keys().size() > 1 ? "MULTI-SET" : "SET")
                                               : "MSET";
    return fmt::format("{} {} -> {}", what, target_.keys()[0], target_.latest_number());
  }

 private:
  Fate end(Fate fate) {
    fate == Fate::kDone ? target_.acknowledge(world_.trace) : target_.refuse();
    return fate;
  }

  World& world_;
  Register& target_;
  Version version_;
  bool as_multi_;
};

class RegisterRead final : public Operation {
 public:
  RegisterRead(World& world, Register& target, bool own, bool as_range)
      : world_(world), target_(target), own_(own), as_range_(as_range) {}

  std::size_t begin(std::string& requests) override {
    mark_ = target_.mark();
    const auto& keys = target_.keys();
    if (as_range_) {
      append_command(requests, {"KELDA.RANGE", keys.front(), keys.back()});
    } else if (keys.size() == 1) {
      append_command(requests, {"GET", keys[0]});
    } else {
      std::vector<std::string> words{"MGET"};
      words.insert(words.end(), keys.begin(), keys.end());
      append_command(requests, words);
    }
    return 1;
  }

  Fate answered(std::span<const Reply> replies) override {
    const Reply& reply = replies.back();
    if (reply.is_error()) return Fate::kRefused;
    std::vector<Reply> found = by_key(reply);
    if (found.size() != target_.keys().size()) {
      world_.trace.fail("wrong reply", fmt::format("a read of {}: {}", target_.keys()[0], reply.to_string()));
      return Fate::kDone;
    }
    target_.judge(mark_, found, own_, world_.writes_lost, world_.wall, world_.trace);
    return Fate::kDone;
  }

  void lost() override {}
  std::string name() const override { return fmt::format("{} {}", as_range_ ? "RANGE" : "GET", target_.keys()[0]); }

 private:
  std::vector<Reply> by_key(const Reply& reply) const {
    if (!as_range_) return reply.type == '*' ? reply.items : std::vector<Reply>{reply};
    std::vector<Reply> found;
    std::size_t at = 0;
    for (const std::string& key : target_.keys()) {
      Reply& item = found.emplace_back();
      item.null = true;
      if (at + 1 >= reply.items.size() || reply.items[at].text != key) continue;
      item = reply.items[at + 1];
      at += 2;
    }
    if (at != reply.items.size()) found.clear();
    return found;
  }

  World& world_;
  Register& target_;
  bool own_, as_range_;
  Register::Mark mark_;
};

}  // namespace

Version random_version(const Config& config, Prng& dice) {
  Version version;
  version.present = !dice.one_in(6);
  if (!version.present) return version;
  // Mostly small.
  const std::uint64_t most = dice.one_in(10) ? config.value_max_bytes : std::min(config.value_max_bytes, 200u);
  version.bytes = static_cast<std::uint32_t>(dice.between(1, most));
  if (dice.below(100) < config.expiry_percent) {
    version.expires_at_ms = WallClock::now_ms() +
                            static_cast<std::int64_t>(dice.one_in(3) ? dice.between(1, 200) : dice.between(1, 20'000));
  }
  return version;
}

std::unique_ptr<Operation> write_register(World& world, Prng& dice, Register& target) {
  const Version version = random_version(world.config, dice);
  const bool as_multi = version.expires_at_ms != 0 || dice.one_in(2);
  return std::make_unique<RegisterWrite>(world, target, version, as_multi);
}

std::unique_ptr<Operation> read_register(World& world, Prng& dice, Register& target, bool own) {
  return std::make_unique<RegisterRead>(world, target, own, dice.one_in(5));
}

}  // namespace kelda::sim
