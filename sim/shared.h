// What all clients write together, and what must hold of it: counters, growing lists, and accounts whose sum is
// constant.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "sim/resp.h"
#include "sim/trace.h"

namespace kelda::sim {

// Counts up by one, by INCR or under WATCH. Every result is given out once, and none is below what was acknowledged.
class Counter {
 public:
  explicit Counter(std::uint32_t number) : key_("count:" + std::to_string(number)) {}
  const std::string& key() const { return key_; }

  // What was known when an operation began.
  struct Mark {
    std::uint64_t acknowledged = 0, epoch = 0;
  };
  Mark mark() const { return {acknowledged_, epoch_}; }
  Mark invoke() {
    ++begun_;
    return mark();
  }
  void acknowledge(const Mark& begun, std::int64_t result, Trace& trace);
  void refuse(const Mark& begun) { begun_ -= begun.epoch == epoch_ ? 1 : 0; }
  void judge(const Mark& begun, const Reply& found, Trace& trace);
  // Nothing is under way: whatever was unknown has happened or not.
  void settle(const Reply& found, Trace& trace);

 private:
  std::string bounds() const;
  std::string key_;
  std::uint64_t acknowledged_ = 0, begun_ = 0;
  std::uint64_t epoch_ = 0;  // replies from before settle() are late: what they tell of is counted already
  std::int64_t highest_ = 0;
  std::set<std::int64_t> given_out_;
};

// A string that grows by APPEND of tokens of kTokenBytes. Every state is a prefix of every later one.
class List {
 public:
  explicit List(std::uint32_t number) : number_(number), key_(name(0)) {}
  static constexpr std::size_t kTokenBytes = 12, kMaxBytes = 200 * kTokenBytes;

  // The list that is written at present; a full one is never written again, but still judged.
  const std::string& key() const { return key_; }
  std::string new_token(std::uint32_t client);
  void acknowledge(const std::string& key, const std::string& token, std::int64_t length, Trace& trace);
  // Of reads, with what was known when they began.
  std::size_t known_bytes(const std::string& key) { return histories_[key].longest.size(); }
  void judge(const std::string& key, std::size_t known_bytes, const Reply& found, Trace& trace);
  // Every acknowledged token is there once, in its place, and nothing else but what was begun.
  void settle(const std::string& key, const Reply& found, Trace& trace);
  std::vector<std::string> keys() const;

 private:
  struct History {
    std::string longest;                              // ever shown
    std::map<std::size_t, std::string> acknowledged;  // by offset
  };
  std::string name(std::uint32_t generation) const;
  std::uint32_t number_, generation_ = 0;
  std::string key_;
  std::map<std::string, History> histories_;
  std::set<std::string> begun_;
  std::uint64_t next_token_ = 1;
};

// Money moves between accounts in transactions: whoever reads all of them at one moment sees the same sum.
class Bank {
 public:
  // `halves`: one command of a transfer may fail alone (World::commands_may_fail). Another sum is then judged when all
  // transfers that were under way have told how they ended.
  Bank(std::uint32_t accounts, bool halves);
  const std::vector<std::string>& keys() const { return keys_; }

  std::uint64_t begin_transfer();
  enum class Outcome : std::uint8_t { kWhole, kHalf, kUnknown };
  void end_transfer(std::uint64_t transfer, Outcome outcome, Trace& trace);

  std::uint64_t epoch() const { return epoch_; }
  void judge(std::uint64_t epoch_before, const Reply& found, Trace& trace);
  // Nothing is under way: from here on the sum is this one.
  void settle(const Reply& found);

 private:
  std::vector<std::string> keys_;
  const bool halves_;
  bool known_ = true;        // the sum
  std::uint64_t epoch_ = 0;  // a read across settle() proves nothing
  std::int64_t sum_ = 0;
  std::uint64_t next_transfer_ = 0;
  std::set<std::uint64_t> under_way_;
  std::set<std::uint64_t> suspects_;  // that may explain what was seen
  std::string seen_;
};

}  // namespace kelda::sim
