#include "sim/transactor.h"

#include <charconv>
#include <optional>
#include <utility>

namespace kelda::sim {

using history::Key;
using history::Value;

namespace {

constexpr Value kNobodyWrote = 0;

struct Command {
  enum class Answer : std::uint8_t { kNothing, kValue, kValues, kPairs };
  std::vector<std::string> words;
  Answer answer = Answer::kNothing;  // about reads
  std::vector<Key> reads = {};
  std::vector<std::pair<Key, Value>> writes = {};  // after the reads
};

// A list is its values, each with a space behind it; a register is one.
std::string text_of(Value value) {
  return std::to_string(value) + " ";
}

std::vector<Value> values_in(Key key, const Reply& reply) {
  if (reply.null) return {};
  std::vector<Value> values;
  const char* at = reply.text.data();
  const char* const end = at + reply.text.size();
  while (at != end) {
    const auto [stop, error] = std::from_chars(at, end, values.emplace_back());
    if (error != std::errc() || stop == end || *stop != ' ') return {kNobodyWrote};
    at = stop + 1;
  }
  if (reply.type != '$' || values.empty() || (!Isolation::is_list(key) && values.size() != 1)) return {kNobodyWrote};
  return values;
}

Command read_command(std::vector<Key> keys) {
  Command command{{keys.size() == 1 ? "GET" : "MGET"}};
  for (const Key key : keys) command.words.push_back(Isolation::name(key));
  command.answer = keys.size() == 1 ? Command::Answer::kValue : Command::Answer::kValues;
  command.reads = std::move(keys);
  return command;
}

Command range_command(std::vector<Key> keys) {
  return {{"KELDA.RANGE", Isolation::name(keys.front()), Isolation::name(keys.back())},
          Command::Answer::kPairs,
          std::move(keys),
          {}};
}

Command append_command_of(Key key, Value value) {
  return {{"APPEND", Isolation::name(key), text_of(value)}, Command::Answer::kNothing, {}, {{key, value}}};
}

Command set_command(Key key, Value value, const std::string& before) {
  return {{"SET", Isolation::name(key), before + text_of(value)}, Command::Answer::kNothing, {}, {{key, value}}};
}

Command exchange_command(Key key, Value value) {
  return {{"GETSET", Isolation::name(key), text_of(value)}, Command::Answer::kValue, {key}, {{key, value}}};
}

std::vector<Key> some_of(const std::vector<Key>& keys, Prng& dice) {
  std::vector<Key> chosen;
  for (const Key key : keys) {
    if (dice.one_in(3)) chosen.push_back(key);
  }
  if (chosen.empty()) chosen.push_back(keys[dice.below(keys.size())]);
  return chosen;
}

Command random_command(Isolation& isolation, Prng& dice) {
  const auto keys = Isolation::keys_of(isolation.round());
  const Key key = keys[dice.below(keys.size())];
  switch (dice.below(10)) {
    case 0:
    case 1:
    case 2:
      return read_command({key});
    case 3:
      return read_command(some_of(keys, dice));
    case 4:
      return range_command(keys);
    case 5: {
      Command command{{"MSET"}};
      for (const Key several : some_of(keys, dice)) {
        if (Isolation::is_list(several)) continue;
        command.writes.emplace_back(several, isolation.recorder.new_value());
        command.words.push_back(Isolation::name(several));
        command.words.push_back(text_of(command.writes.back().second));
      }
      return command.writes.empty() ? read_command({key}) : command;
    }
    default: {
      const Value value = isolation.recorder.new_value();
      if (Isolation::is_list(key)) return append_command_of(key, value);
      return dice.one_in(3) ? exchange_command(key, value) : set_command(key, value, "");
    }
  }
}

}  // namespace

class RoundTrip final : public Operation {
 public:
  enum class Form : std::uint8_t { kAlone, kUnderWatch, kMulti };
  RoundTrip(Transactor& client, Form form, std::vector<Command> commands)
      : client_(client), form_(form), commands_(std::move(commands)), watched_(std::exchange(client.watched_, {})) {}

  std::size_t begin(std::string& requests) override {
    recording_.emplace(client_.isolation_.recorder, client_.process_);
    if (form_ == Form::kUnderWatch) {
      std::vector<std::string> words = commands_[0].words;
      words[0] = "WATCH";
      append_command(requests, words);
    }
    if (form_ == Form::kMulti) append_command(requests, {"MULTI"});
    for (const Command& command : commands_) append_command(requests, command.words);
    if (form_ == Form::kMulti) append_command(requests, {"EXEC"});
    return commands_.size() + (form_ == Form::kMulti ? 2 : form_ == Form::kUnderWatch ? 1 : 0);
  }

  Fate answered(std::span<const Reply> replies) override {
    const Reply& last = replies.back();
    if (last.is_error("MISCONF")) return lost(), Fate::kUnknown;
    const bool refused = form_ == Form::kMulti && last.null;  // somebody else was faster
    if (last.is_error() || refused) {
      record_attempt();
      recording_->end(history::Outcome::kFailed);
      return refused ? Fate::kDone : Fate::kRefused;
    }
    bool done = true;
    if (form_ == Form::kMulti) {
      for (const WatchedValue& watched : watched_) read(watched.key, watched.value);
      if (last.items.size() != commands_.size()) nonsense();
      for (std::size_t i = 0; i < commands_.size() && i < last.items.size(); ++i)
        done = record(commands_[i], last.items[i]) && done;
    } else {
      done = record(commands_[0], last);
    }
    recording_->end(history::Outcome::kOk);
    if (form_ == Form::kUnderWatch && !replies[0].is_error()) remember(last);
    return done ? Fate::kDone : Fate::kRefused;
  }

  void lost() override {
    // Whoever commits under WATCH has seen what was read there.
    for (const WatchedValue& watched : watched_) read(watched.key, watched.value);
    record_attempt();
    recording_->end(history::Outcome::kUnknown);
    client_.process_ = client_.isolation_.recorder.new_process();
  }

  std::string name() const override {
    std::string text = form_ == Form::kMulti ? "MULTI" : form_ == Form::kUnderWatch ? "WATCH" : "";
    for (const Command& command : commands_) {
      for (const std::string& word : command.words) text += (text.empty() ? "" : " ") + word;
    }
    return text;
  }

 private:
  void read(Key key, const Reply& value) { recording_->read(Isolation::is_list(key), key, values_in(key, value)); }
  void write(const Command& command) {
    for (const auto& [key, value] : command.writes) recording_->wrote(Isolation::is_list(key), key, value);
  }
  void record_attempt() {
    for (const Command& command : commands_) write(command);
  }
  void nonsense() { recording_->read(true, 0, {kNobodyWrote}); }

  // False if the command failed, alone.
  bool record(const Command& command, const Reply& reply) {
    if (reply.is_error()) {
      const std::size_t before = recording_->op_count();
      write(command);
      recording_->undo_to(before);
      return false;
    }
    switch (command.answer) {
      case Command::Answer::kNothing:
        break;
      case Command::Answer::kValue:
        read(command.reads[0], reply);
        break;
      case Command::Answer::kValues:
        if (reply.items.size() != command.reads.size()) nonsense();
        for (std::size_t i = 0; i < reply.items.size() && i < command.reads.size(); ++i)
          read(command.reads[i], reply.items[i]);
        break;
      case Command::Answer::kPairs:
        read_pairs(command.reads, reply.items);
    }
    write(command);
    return true;
  }

  // Keys that are not there are absent.
  void read_pairs(std::span<const Key> keys, std::span<const Reply> pairs) {
    for (const Key key : keys) {
      Reply value;
      value.null = pairs.size() < 2 || pairs[0].text != Isolation::name(key);
      if (!value.null) {
        value = pairs[1];
        pairs = pairs.subspan(2);
      }
      read(key, value);
    }
    if (!pairs.empty()) nonsense();
  }

  void remember(const Reply& reply) {
    const auto& keys = commands_[0].reads;
    if (keys.size() == 1) {
      client_.watched_.push_back({keys[0], reply});
    } else if (reply.items.size() == keys.size()) {
      for (std::size_t i = 0; i < keys.size(); ++i) client_.watched_.push_back({keys[i], reply.items[i]});
    }
  }

  Transactor& client_;
  const Form form_;
  const std::vector<Command> commands_;
  const std::vector<WatchedValue> watched_;
  std::optional<Recording> recording_;
};

std::unique_ptr<Operation> Transactor::next() {
  using Form = RoundTrip::Form;
  std::vector<Command> commands;
  if (!watched_.empty()) {
    for (const WatchedValue& watched : watched_) {
      if (dice_.one_in(4)) continue;
      const std::string before = Isolation::is_list(watched.key) ? watched.value.text : "";
      commands.push_back(set_command(watched.key, isolation_.recorder.new_value(), before));
    }
    for (std::uint64_t more = dice_.below(3) + (commands.empty() ? 1 : 0); more > 0; --more)
      commands.push_back(random_command(isolation_, dice_));
    return std::make_unique<RoundTrip>(*this, Form::kMulti, std::move(commands));
  }
  const std::uint64_t form = dice_.below(4);
  if (form == 0) {
    commands.push_back(random_command(isolation_, dice_));
    return std::make_unique<RoundTrip>(*this, Form::kAlone, std::move(commands));
  }
  if (form == 1) {
    for (std::uint64_t n = dice_.between(1, 4); n > 0; --n) commands.push_back(random_command(isolation_, dice_));
    return std::make_unique<RoundTrip>(*this, Form::kMulti, std::move(commands));
  }
  auto keys = some_of(Isolation::keys_of(isolation_.round()), dice_);
  keys.resize(std::min<std::size_t>(keys.size(), 2));
  commands.push_back(read_command(std::move(keys)));
  return std::make_unique<RoundTrip>(*this, Form::kUnderWatch, std::move(commands));
}

std::unique_ptr<Operation> Transactor::read_round(std::uint64_t round) {
  std::vector<Command> commands;
  commands.push_back(read_command(Isolation::keys_of(round)));
  return std::make_unique<RoundTrip>(*this, RoundTrip::Form::kAlone, std::move(commands));
}

}  // namespace kelda::sim
