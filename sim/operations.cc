// Operations on what all clients share, and the choice among all kinds.
#include "sim/operation.h"

#include <charconv>

#include "sim/register_operations.h"

namespace kelda::sim {

namespace {

class Increment final : public Operation {
 public:
  Increment(World& world, Counter& counter) : world_(world), counter_(counter) {}
  std::size_t begin(std::string& requests) override {
    begun_ = counter_.invoke();
    append_command(requests, {"INCR", counter_.key()});
    return 1;
  }
  Fate answered(std::span<const Reply> replies) override {
    if (replies[0].is_error("MISCONF")) return Fate::kUnknown;
    if (replies[0].is_error()) return counter_.refuse(begun_), Fate::kRefused;
    if (!world_.writes_lost) counter_.acknowledge(begun_, replies[0].integer, world_.trace);
    return Fate::kDone;
  }
  void lost() override {}
  std::string name() const override { return "INCR " + counter_.key(); }

 private:
  World& world_;
  Counter& counter_;
  Counter::Mark begun_;
};

class CounterRead final : public Operation {
 public:
  CounterRead(World& world, Counter& counter) : world_(world), counter_(counter) {}
  std::size_t begin(std::string& requests) override {
    begun_ = counter_.mark();
    append_command(requests, {"GET", counter_.key()});
    return 1;
  }
  Fate answered(std::span<const Reply> replies) override {
    if (replies[0].is_error()) return Fate::kRefused;
    if (!world_.writes_lost) counter_.judge(begun_, replies[0], world_.trace);
    return Fate::kDone;
  }
  void lost() override {}
  std::string name() const override { return "GET " + counter_.key(); }

 private:
  World& world_;
  Counter& counter_;
  Counter::Mark begun_;
};

class Transfer final : public Operation {
 public:
  Transfer(World& world, Prng& dice) : world_(world) {
    const auto& keys = world.bank.keys();
    from_ = keys[dice.below(keys.size())];
    to_ = keys[dice.below(keys.size())];
    amount_ = std::to_string(dice.between(1, 100));
  }
  std::size_t begin(std::string& requests) override {
    transfer_ = world_.bank.begin_transfer();
    append_command(requests, {"MULTI"});
    append_command(requests, {"DECRBY", from_, amount_});
    append_command(requests, {"INCRBY", to_, amount_});
    append_command(requests, {"EXEC"});
    return 4;
  }
  Fate answered(std::span<const Reply> replies) override {
    const Reply& last = replies.back();
    if (last.is_error("MISCONF")) return lost(), Fate::kUnknown;
    const std::size_t failed = last.items.size() != 2 ? 2 : last.items[0].is_error() + last.items[1].is_error();
    world_.bank.end_transfer(transfer_, failed == 1 ? Bank::Outcome::kHalf : Bank::Outcome::kWhole, world_.trace);
    return failed == 0 ? Fate::kDone : Fate::kRefused;
  }
  void lost() override { world_.bank.end_transfer(transfer_, Bank::Outcome::kUnknown, world_.trace); }
  std::string name() const override { return "transfer " + from_ + " " + to_; }

 private:
  World& world_;
  std::string from_, to_, amount_;
  std::uint64_t transfer_ = 0;
};

class BankRead final : public Operation {
 public:
  explicit BankRead(World& world) : world_(world) {}
  std::size_t begin(std::string& requests) override {
    epoch_ = world_.bank.epoch();
    std::vector<std::string> words{"MGET"};
    words.insert(words.end(), world_.bank.keys().begin(), world_.bank.keys().end());
    append_command(requests, words);
    return 1;
  }
  Fate answered(std::span<const Reply> replies) override {
    if (replies[0].is_error()) return Fate::kRefused;
    if (!world_.writes_lost) world_.bank.judge(epoch_, replies[0], world_.trace);
    return Fate::kDone;
  }
  void lost() override {}
  std::string name() const override { return "MGET accounts"; }

 private:
  World& world_;
  std::uint64_t epoch_ = 0;
};

class Append final : public Operation {
 public:
  Append(World& world, std::uint32_t client, List& list)
      : world_(world), list_(list), client_(client), key_(list.key()) {}
  std::size_t begin(std::string& requests) override {
    token_ = list_.new_token(client_);
    append_command(requests, {"APPEND", key_, token_});
    return 1;
  }
  Fate answered(std::span<const Reply> replies) override {
    if (replies[0].is_error("MISCONF")) return Fate::kUnknown;
    if (replies[0].is_error()) return Fate::kRefused;
    if (!world_.writes_lost) list_.acknowledge(key_, token_, replies[0].integer, world_.trace);
    return Fate::kDone;
  }
  void lost() override {}
  std::string name() const override { return "APPEND " + key_ + " " + token_; }

 private:
  World& world_;
  List& list_;
  std::uint32_t client_;
  std::string key_, token_;
};

class ListRead final : public Operation {
 public:
  ListRead(World& world, List& list) : world_(world), list_(list), key_(list.key()) {}
  std::size_t begin(std::string& requests) override {
    known_bytes_ = list_.known_bytes(key_);
    append_command(requests, {"GET", key_});
    return 1;
  }
  Fate answered(std::span<const Reply> replies) override {
    if (replies[0].is_error()) return Fate::kRefused;
    if (!world_.writes_lost) list_.judge(key_, known_bytes_, replies[0], world_.trace);
    return Fate::kDone;
  }
  void lost() override {}
  std::string name() const override { return "GET " + key_; }

 private:
  World& world_;
  List& list_;
  std::string key_;
  std::size_t known_bytes_ = 0;
};

class WatchRead final : public Operation {
 public:
  explicit WatchRead(WatchedRead& shared) : shared_(shared) {}
  std::size_t begin(std::string& requests) override {
    begun_ = shared_.counter.mark();
    append_command(requests, {"WATCH", shared_.counter.key()});
    append_command(requests, {"GET", shared_.counter.key()});
    return 2;
  }
  Fate answered(std::span<const Reply> replies) override {
    if (replies[0].is_error() || replies[1].is_error()) return Fate::kRefused;
    if (!shared_.world.writes_lost) shared_.counter.judge(begun_, replies[1], shared_.world.trace);
    const std::string& text = replies[1].text;
    (void)std::from_chars(text.data(), text.data() + text.size(), shared_.seen);
    shared_.done = true;
    return Fate::kDone;
  }
  void lost() override {}
  std::string name() const override { return "WATCH " + shared_.counter.key(); }

 private:
  WatchedRead& shared_;
  Counter::Mark begun_;
};

class WatchedWrite final : public Operation {
 public:
  explicit WatchedWrite(WatchedRead& shared) : shared_(shared) {}
  std::size_t begin(std::string& requests) override {
    begun_ = shared_.counter.invoke();
    append_command(requests, {"MULTI"});
    append_command(requests, {"SET", shared_.counter.key(), std::to_string(shared_.seen + 1)});
    append_command(requests, {"EXEC"});
    return 3;
  }
  Fate answered(std::span<const Reply> replies) override {
    const Reply& last = replies[2];
    if (last.is_error("MISCONF")) return Fate::kUnknown;
    if (last.null) return shared_.counter.refuse(begun_), Fate::kDone;  // somebody else was faster
    if (last.is_error() || last.items.size() != 1 || last.items[0].is_error())
      return shared_.counter.refuse(begun_), Fate::kRefused;
    if (!shared_.world.writes_lost) shared_.counter.acknowledge(begun_, shared_.seen + 1, shared_.world.trace);
    return Fate::kDone;
  }
  void lost() override {}
  std::string name() const override {
    return "EXEC SET " + shared_.counter.key() + " " + std::to_string(shared_.seen + 1);
  }

 private:
  WatchedRead& shared_;
  Counter::Mark begun_;
};

}  // namespace

std::unique_ptr<Operation> make_watched_read(WatchedRead& shared) {
  return std::make_unique<WatchRead>(shared);
}
std::unique_ptr<Operation> make_watched_write(WatchedRead& shared) {
  return std::make_unique<WatchedWrite>(shared);
}

std::unique_ptr<Operation> make_operation(World& world, Prng& dice, std::uint32_t client, std::vector<bool>& busy) {
  const bool write = dice.below(100) < world.config.write_percent;
  const std::uint64_t kind = dice.below(10);
  if (kind < 6) {
    const std::size_t i = dice.below(busy.size());
    Register& own = world.registers[client][i];
    if (!busy[i] && (write || own.in_doubt())) {
      busy[i] = true;
      return own.in_doubt() ? read_register(world, dice, own, true) : write_register(world, dice, own);
    }
    const std::uint32_t owner = static_cast<std::uint32_t>(dice.below(world.registers.size()));
    const std::size_t target = dice.below(world.registers[owner].size());
    return read_register(world, dice, world.registers[owner][target], false);
  }
  Counter& counter = world.counters[dice.below(world.counters.size())];
  List& list = world.lists[dice.below(world.lists.size())];
  switch (kind) {
    case 6:
      return write ? std::unique_ptr<Operation>(std::make_unique<Increment>(world, counter))
                   : std::make_unique<CounterRead>(world, counter);
    case 7:
      return write ? std::unique_ptr<Operation>(std::make_unique<Transfer>(world, dice))
                   : std::make_unique<BankRead>(world);
    default:
      return write ? std::unique_ptr<Operation>(std::make_unique<Append>(world, client, list))
                   : std::make_unique<ListRead>(world, list);
  }
}

}  // namespace kelda::sim
