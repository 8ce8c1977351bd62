// The history, numbered: dense numbers for keys and versions, who wrote which version, and who counts as committed.
//
// A version is what a write made of a key, or the key's initial state (absent, empty). Internal to history/.
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "common/result.h"
#include "history/history.h"

namespace kelda::history {

using TxnIndex = std::uint32_t;
using KeyIndex = std::uint32_t;
using VersionIndex = std::uint32_t;
inline constexpr std::uint32_t kNone = ~std::uint32_t{0};

struct Version {
  KeyIndex key = 0;
  Value value = 0;          // of an initial version: none
  TxnIndex writer = kNone;  // kNone: initial
  std::uint32_t op = 0;
  bool last_of_writer = true;  // its writer wrote no later one to the key

  bool initial() const { return writer == kNone; }
};

struct KeyInfo {
  Key name;
  bool is_list;
  VersionIndex initial;
  std::vector<VersionIndex> written = {};  // by value
};

class HistoryIndex {
 public:
  static Result<HistoryIndex> build(const History& history);

  const History& history() const { return *history_; }
  const std::vector<KeyInfo>& keys() const { return keys_; }
  const std::vector<Version>& versions() const { return versions_; }
  const Version& version(VersionIndex index) const { return versions_[index]; }
  KeyIndex key_of(const Op& op) const { return key_indices_.find(op.key)->second; }
  // kNone: nobody wrote it.
  VersionIndex find(KeyIndex key, Value value) const;
  VersionIndex version_written(const Op& op) const { return find(key_of(op), op.values[0]); }

  // Committed, or of unknown outcome and seen by one that counts.
  bool counts(TxnIndex txn) const { return counts_[txn]; }
  bool aborted(TxnIndex txn) const { return history_->transactions[txn].outcome == Outcome::kFailed; }
  std::size_t unknown_counted() const { return unknown_counted_; }

 private:
  Result<> number_versions();
  void count_committed();

  const History* history_ = nullptr;
  std::vector<KeyInfo> keys_;
  std::unordered_map<Key, KeyIndex> key_indices_;
  std::vector<Version> versions_;
  std::vector<bool> counts_;
  std::size_t unknown_counted_ = 0;
};

inline bool is_prefix(const std::vector<Value>& shorter, const std::vector<Value>& longer) {
  return shorter.size() <= longer.size() && std::equal(shorter.begin(), shorter.end(), longer.begin());
}

// What a reader saw of a key, and that a version followed another (not always at once).
struct VersionRead {
  VersionIndex version;
  TxnIndex reader;
  std::uint32_t op;
};
struct Succession {
  VersionIndex before, after;
  bool by_time;  // known only if whoever ended before another began took place before it

  auto operator<=>(const Succession&) const = default;
};

// What lists and registers tell of dependencies: see graph.h.
struct Facts {
  std::vector<VersionRead> reads;  // of others' versions
  std::vector<Succession> successions;
  std::vector<VersionRead> replaced;  // versions that a committed transaction read and then wrote the key
};

}  // namespace kelda::history
