// Random histories: those of a store that runs one transaction after the other must pass whatever their overlap in
// time, and every change to one that no such store could have produced must be found.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "common/prng.h"
#include "history/check.h"

namespace kelda::history {
namespace {

struct Shape {
  std::size_t transactions = 300;
  std::uint32_t processes = 8;
  Key lists = 5, registers = 5;
  std::uint32_t most_ops = 6;
  std::size_t new_keys_after = 1'000'000;  // transactions: lists that are only appended to grow too long to read
};

// Transaction i takes place at a time of its own, in the order of i, and is under way for some time around it. The last
// one reads all keys.
class SerialStore {
 public:
  SerialStore(std::uint64_t seed, Shape shape) : random_(seed), shape_(shape) {}

  History run() {
    History history;
    std::vector<Time> free_from(shape_.processes, 0);
    for (std::size_t i = 0; i <= shape_.transactions; ++i) {
      const Time point = 1000 * i + 500 * shape_.processes;
      Transaction txn;
      const bool last = i == shape_.transactions;
      if (i > 0 && !last && i % shape_.new_keys_after == 0) {
        first_key_ += 2 * std::max(shape_.lists, shape_.registers);
        lists_.clear();
        registers_.clear();
      }
      txn.begin = point - random_.below(last ? 1 : 500 * shape_.processes);
      txn.end = point + random_.below(500 * shape_.processes) + 1;
      // Whoever is free; if nobody is, the one that is free first, and the transaction begins then.
      txn.process = static_cast<std::uint32_t>(random_.below(shape_.processes));
      if (free_from[txn.process] >= point)
        txn.process = static_cast<std::uint32_t>(std::ranges::min_element(free_from) - free_from.begin());
      if (free_from[txn.process] >= point)
        txn.process = static_cast<std::uint32_t>(free_from.size()), free_from.push_back(0);
      txn.begin = std::max(txn.begin, free_from[txn.process] + 1);
      free_from[txn.process] = txn.end;
      last ? read_all(txn) : choose(txn);
      history.transactions.push_back(std::move(txn));
    }
    return history;
  }

 private:
  void choose(Transaction& txn) {
    const auto lists = lists_;
    const auto registers = registers_;
    for (std::uint64_t n = random_.between(1, shape_.most_ops); n > 0; --n) operate(txn, random_key());
    bool applied = true;
    if (random_.one_in(10)) {
      txn.outcome = Outcome::kFailed;
      applied = false;
    } else if (random_.one_in(10)) {
      txn.outcome = Outcome::kUnknown;
      txn.end = random_.one_in(2) ? kNever : txn.end;
      applied = random_.one_in(2);
    }
    if (applied) return;
    lists_ = lists;
    registers_ = registers;
  }

  // Even keys are lists, odd ones registers.
  Key random_key() {
    const Key n = random_.below(shape_.lists + shape_.registers);
    return first_key_ + (n < shape_.lists ? 2 * n : 2 * (n - shape_.lists) + 1);
  }

  void operate(Transaction& txn, Key key) {
    const bool is_list = key % 2 == 0;
    if (random_.one_in(2)) {
      read(txn, key);
    } else if (is_list) {
      lists_[key].push_back(++next_value_);
      txn.ops.push_back(Op::append(key, next_value_));
    } else {
      registers_[key] = ++next_value_;
      txn.ops.push_back(Op::write(key, next_value_));
    }
  }

  void read(Transaction& txn, Key key) {
    if (key % 2 == 0) {
      txn.ops.push_back(Op::read_list(key, lists_[key]));
    } else if (const auto found = registers_.find(key); found != registers_.end()) {
      txn.ops.push_back(Op::read(key, found->second));
    } else {
      txn.ops.push_back(Op::read_absent(key));
    }
  }

  void read_all(Transaction& txn) {
    for (Key key = 0; key < shape_.lists; ++key) read(txn, first_key_ + 2 * key);
    for (Key key = 0; key < shape_.registers; ++key) read(txn, first_key_ + 2 * key + 1);
  }

  Prng random_;
  Shape shape_;
  std::map<Key, std::vector<Value>> lists_;
  std::map<Key, Value> registers_;
  Value next_value_ = 0;
  Key first_key_ = 0;
};

Report must_check(const History& history) {
  auto report = check(history);
  EXPECT_TRUE(report.has_value()) << report.error().to_string();
  return report ? *std::move(report) : Report{};
}

void shuffle(History& history, Prng& random) {
  auto& list = history.transactions;
  for (std::size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[random.below(i)]);
}

TEST(RandomHistories, WhatASerialStoreProducesIsStrictlySerializable) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    Prng random(seed);
    Shape shape;
    shape.processes = static_cast<std::uint32_t>(random.between(1, 30));
    shape.lists = random.between(1, 8);
    shape.registers = random.between(1, 8);
    History history = SerialStore(seed, shape).run();
    shuffle(history, random);
    const Report report = must_check(history);
    ASSERT_TRUE(report.findings.empty()) << "seed " << seed << "\n" << report.to_string();
    ASSERT_TRUE(report.satisfies(Level::kStrictSerializable));
  }
}

// ---- what is wrong must be found ----

// Changes a history so that no serial store could have produced it. False: it found no place for the change.
using Mutation = std::function<bool(History&, Prng&)>;

// Calls `try_at` for the operations of committed transactions, beginning somewhere, until one returns true.
bool somewhere(History& history, Prng& random, const std::function<bool(Transaction&, Op&)>& try_at) {
  const std::size_t start = random.below(history.transactions.size());
  for (std::size_t i = 0; i < history.transactions.size(); ++i) {
    Transaction& txn = history.transactions[(start + i) % history.transactions.size()];
    if (txn.outcome != Outcome::kOk) continue;
    for (Op& op : txn.ops) {
      if (try_at(txn, op)) return true;
    }
  }
  return false;
}

// The transaction's only access to the key: a change of it can be explained by nothing that it did itself.
bool only_access(const Transaction& txn, const Op& op) {
  return std::ranges::count(txn.ops, op.key, &Op::key) == 1;
}

const Transaction* writer_of(const History& history, Key key, Value value) {
  for (const Transaction& txn : history.transactions) {
    for (const Op& op : txn.ops) {
      if (op.writes() && op.key == key && op.values[0] == value) return &txn;
    }
  }
  return nullptr;
}

bool ended_before(const History& history, Key key, Value value, Time begin) {
  const Transaction* writer = writer_of(history, key, value);
  return writer != nullptr && writer->outcome == Outcome::kOk && writer->end < begin;
}

bool long_list(const Op& op, std::size_t at_least) {
  return op.kind == OpKind::kReadList && op.values.size() >= at_least;
}

const std::map<std::string, Mutation> kMutations = {
    {"two neighbours of a list read swapped",
     [](History& history, Prng& random) {
       // The final reader confirms the order of all others' reads.
       return somewhere(history, random, [&](Transaction& txn, Op& op) {
         if (!long_list(op, 2) || &txn == &history.transactions.back()) return false;
         const std::size_t i = random.below(op.values.size() - 1);
         std::swap(op.values[i], op.values[i + 1]);
         return true;
       });
     }},
    {"an element of a list read missing, not the last",
     [](History& history, Prng& random) {
       return somewhere(history, random, [&](Transaction& txn, Op& op) {
         if (!long_list(op, 2) || &txn == &history.transactions.back()) return false;
         op.values.erase(op.values.begin() + static_cast<std::ptrdiff_t>(random.below(op.values.size() - 1)));
         return true;
       });
     }},
    {"an element of a list read twice",
     [](History& history, Prng& random) {
       return somewhere(history, random, [&](Transaction&, Op& op) {
         if (!long_list(op, 1)) return false;
         op.values.push_back(op.values[random.below(op.values.size())]);
         return true;
       });
     }},
    {"a list read with a value that nobody wrote",
     [](History& history, Prng& random) {
       return somewhere(history, random, [&](Transaction&, Op& op) {
         if (op.kind != OpKind::kReadList) return false;
         op.values.insert(op.values.begin() + static_cast<std::ptrdiff_t>(random.below(op.values.size() + 1)),
                          1'000'000'000);
         return true;
       });
     }},
    {"a register read with a value that nobody wrote",
     [](History& history, Prng& random) {
       return somewhere(history, random, [&](Transaction&, Op& op) {
         if (op.kind != OpKind::kReadRegister) return false;
         op.values = {1'000'000'000};
         return true;
       });
     }},
    {"a list read that is stale",
     [](History& history, Prng& random) {
       return somewhere(history, random, [&](Transaction& txn, Op& op) {
         if (!long_list(op, 1) || !only_access(txn, op)) return false;
         if (!ended_before(history, op.key, op.values.back(), txn.begin)) return false;
         op.values.pop_back();
         return true;
       });
     }},
    {"a register read that is stale",
     [](History& history, Prng& random) {
       return somewhere(history, random, [&](Transaction& txn, Op& op) {
         if (op.kind != OpKind::kReadRegister || op.values.empty() || !only_access(txn, op)) return false;
         if (!ended_before(history, op.key, op.values[0], txn.begin)) return false;
         const Transaction* writer = writer_of(history, op.key, op.values[0]);
         // What was there before its writer began.
         for (const Transaction& older : history.transactions) {
           if (older.outcome != Outcome::kOk || older.end >= writer->begin) continue;
           for (const Op& write : older.ops) {
             if (write.kind != OpKind::kWrite || write.key != op.key) continue;
             op.values = write.values;
             return true;
           }
         }
         op.values.clear();
         return true;
       });
     }},
    {"a register read from the future",
     [](History& history, Prng& random) {
       return somewhere(history, random, [&](Transaction& txn, Op& op) {
         if (op.kind != OpKind::kReadRegister || !only_access(txn, op)) return false;
         for (const Transaction& later : history.transactions) {
           if (later.outcome != Outcome::kOk || later.begin <= txn.end) continue;
           for (const Op& write : later.ops) {
             if (write.kind != OpKind::kWrite || write.key != op.key) continue;
             op.values = write.values;
             return true;
           }
         }
         return false;
       });
     }},
    {"a writer that was seen, aborted",
     [](History& history, Prng& random) {
       return somewhere(history, random, [&](Transaction& reader, Op& op) {
         if (op.writes() || op.values.empty()) return false;
         auto* writer = const_cast<Transaction*>(writer_of(history, op.key, op.values[random.below(op.values.size())]));
         if (writer == &reader) return false;
         writer->outcome = Outcome::kFailed;
         return true;
       });
     }},
    {"an acknowledged append that all reads miss",
     [](History& history, Prng& random) {
       const Transaction& final = history.transactions.back();
       return somewhere(history, random, [&](Transaction& writer, Op& append) {
         // The final reader comes after it in time.
         if (append.kind != OpKind::kAppend || writer.end >= final.begin) return false;
         const Key key = append.key;
         const Value lost = append.values[0];
         for (Transaction& txn : history.transactions) {
           for (Op& op : txn.ops) {
             if (op.kind == OpKind::kReadList && op.key == key) std::erase(op.values, lost);
           }
         }
         return true;
       });
     }},
    {"a read that misses the transaction's own write",
     [](History& history, Prng& random) {
       return somewhere(history, random, [&](Transaction& txn, Op& op) {
         if (op.kind != OpKind::kReadList || op.values.empty()) return false;
         const Transaction* writer = writer_of(history, op.key, op.values.back());
         if (writer != &txn) return false;
         op.values.pop_back();
         return true;
       });
     }},
    {"two reads of a transaction that differ",
     [](History& history, Prng& random) {
       return somewhere(history, random, [&](Transaction& txn, Op& op) {
         if (!long_list(op, 1) || !only_access(txn, op)) return false;
         Op shorter = op;
         shorter.values.pop_back();
         txn.ops.push_back(shorter);
         return true;
       });
     }},
};

TEST(RandomHistories, EveryImpossibleChangeIsFound) {
  constexpr int kSeeds = 60;
  int changes = 0;
  for (const auto& [name, mutate] : kMutations) {
    int made = 0;
    for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
      Prng random(seed * 77);
      History history = SerialStore(seed, {}).run();
      if (!mutate(history, random)) continue;
      ++made;
      shuffle(history, random);
      const Report report = must_check(history);
      EXPECT_FALSE(report.findings.empty()) << name << ", seed " << seed;
      EXPECT_FALSE(report.satisfies(Level::kStrictSerializable)) << name << ", seed " << seed;
    }
    EXPECT_GT(made, kSeeds / 2) << name << ": hardly ever possible";
    changes += made;
  }
  EXPECT_GE(changes, 400);
  RecordProperty("changes", changes);
}

TEST(RandomHistories, AHundredThousandTransactionsAreChecked) {
  History history =
      SerialStore(1, {.transactions = 100'000, .processes = 20, .lists = 8, .registers = 8, .new_keys_after = 500})
          .run();
  const Report good = must_check(history);
  EXPECT_TRUE(good.findings.empty()) << good.to_string();
  EXPECT_TRUE(good.satisfies(Level::kStrictSerializable));
  EXPECT_GT(good.committed, 80'000u);
  // The worst case: nothing in order, so that almost all of it is one knot.
  for (std::size_t i = 0; i < history.transactions.size(); ++i) {
    history.transactions[i].begin = 10 * (history.transactions.size() - i);
    history.transactions[i].end = history.transactions[i].begin + 5;
  }
  const Report bad = must_check(history);
  EXPECT_TRUE(bad.satisfies(Level::kSerializable));
  EXPECT_FALSE(bad.satisfies(Level::kStrictSerializable));
}

}  // namespace
}  // namespace kelda::history
