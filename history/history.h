// A recorded history: what clients asked of a transactional store, what they were told, and when.
//
// Contract
//  - A key is a list (appends, and reads of the whole list) or a register (writes and reads), never both. Each value is
//    written to a key at most once in a history, also by transactions that fail: a read then names the write it saw.
//  - kFailed: certainly not committed. kUnknown: perhaps (the connection was lost, the machine stopped). The checker
//    counts an unknown one as committed when somebody who counts saw one of its writes, and else leaves it out.
//  - Reads whose result nobody knows are left out of `ops`.
//  - Times are of one clock; a transaction took place at or after `begin` and at or before `end`. For an unknown one,
//    `end` bounds the moment from which its writes could be seen: kNever, or for instance the restart of the machine.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

namespace kelda::history {

using Key = std::uint64_t;
using Value = std::uint64_t;
using Time = std::uint64_t;
inline constexpr Time kNever = ~Time{0};

enum class OpKind : std::uint8_t { kAppend, kReadList, kWrite, kReadRegister };

struct Op {
  OpKind kind;
  Key key;
  // What was appended or written: one value. What was read: the list; of a register one value, or none if it was
  // absent.
  std::vector<Value> values;

  static Op append(Key key, Value value) { return {OpKind::kAppend, key, {value}}; }
  static Op read_list(Key key, std::vector<Value> seen) { return {OpKind::kReadList, key, std::move(seen)}; }
  static Op write(Key key, Value value) { return {OpKind::kWrite, key, {value}}; }
  static Op read(Key key, Value seen) { return {OpKind::kReadRegister, key, {seen}}; }
  static Op read_absent(Key key) { return {OpKind::kReadRegister, key, {}}; }

  bool writes() const { return kind == OpKind::kAppend || kind == OpKind::kWrite; }
  bool of_list() const { return kind == OpKind::kAppend || kind == OpKind::kReadList; }
};

enum class Outcome : std::uint8_t { kOk, kFailed, kUnknown };

struct Transaction {
  std::uint32_t process = 0;  // a client that runs one transaction after the other
  Time begin = 0, end = kNever;
  Outcome outcome = Outcome::kOk;
  std::vector<Op> ops;
};

struct History {
  std::vector<Transaction> transactions;  // in any order
  // For registers whose versions' order is known: all committed values, oldest first. Others' is inferred.
  std::map<Key, std::vector<Value>> version_orders;
};

}  // namespace kelda::history
