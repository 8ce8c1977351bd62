#include "tools/bench_tree.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "blockdev/blockdev.h"
#include "runtime/core.h"

namespace kelda::tools {

namespace {

constexpr const char* kTreeName = "kelda bench kv";
constexpr const char* kFormerTreeName = "bench";  // of earlier versions, which never removed it
constexpr std::size_t kTreesNamed = 4;

// A record as the benchmark writes it: make_key()'s 16 digits, and one letter over and over.
bool is_record(std::string_view key, std::string_view value) {
  const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (key.size() != 16 || !std::ranges::all_of(key, is_digit) || value.empty()) return false;
  const char letter = value.front();
  return (letter == 'v' || letter == 'u') && value.find_first_not_of(letter) == value.npos;
}

Result<bool> holds_records_only(Database& db, const std::string& name) {
  const Tree tree = TRY(db.tree(name, false));
  auto txn = db.begin();
  bool ours = true;
  {
    auto scan = TRY(txn->scan(tree));
    for (bool more = TRY(scan->seek("")); more && ours; more = TRY(scan->next())) ours = is_record(scan->key(), TRY(scan->value()));
  }
  TRY(txn->roll_back());
  return ours;
}

// Dropped trees are freed in the background. Ends when no more than `goal` pages are in use, or nothing moves any more.
void wait_for_pages(const Database& db, std::uint64_t goal) {
  constexpr std::uint64_t kPauseNs = 10'000'000, kPatienceNs = 2'000'000'000;
  std::uint64_t used = db.stats().used_pages;
  for (auto changed_ns = runtime::now_ns(); used > goal && runtime::now_ns() - changed_ns < kPatienceNs;) {
    runtime::Core::current().sleep_until(runtime::now_ns() + kPauseNs);
    const std::uint64_t now = db.stats().used_pages;
    if (now != used) changed_ns = runtime::now_ns();
    used = now;
  }
}

Result<> remove_leftovers(Database& db) {
  bool removed = false;
  for (const std::string& name : TRY(db.tree_names())) {
    if (name != kTreeName && name != kFormerTreeName) continue;
    if (!TRY(holds_records_only(db, name))) continue;
    TRY(db.drop_tree(name));
    removed = true;
  }
  if (!removed) return {};
  std::fprintf(stderr, "removed what an earlier benchmark had left on %s\n", db.device().info().name.c_str());
  wait_for_pages(db, 0);
  return {};
}

Error somebodys(const Database& db, const std::vector<std::string>& names) {
  std::string list;
  for (std::size_t i = 0; i < std::min(names.size(), kTreesNamed); ++i) list += (i == 0 ? "'" : ", '") + names[i] + "'";
  if (names.size() > kTreesNamed) list += " and " + std::to_string(names.size() - kTreesNamed) + " more";
  return Error(Code::kExists, db.device().info().name + " holds data (" + (names.size() == 1 ? "tree " : "trees ") + list +
                                  "), and a benchmark may fill the disk: name a disk of its own, or add --keep-data, which "
                                  "leaves them as they are and removes at the end what the benchmark wrote");
}

}  // namespace

Result<BenchTree> BenchTree::make(Database& db, bool beside_data) {
  TRY(remove_leftovers(db));
  const std::vector<std::string> names = TRY(db.tree_names());
  if (!names.empty() && !beside_data) return somebodys(db, names);
  if (std::ranges::find(names, kTreeName) != names.end()) {
    return Error(Code::kExists, std::string("the tree '") + kTreeName + "' holds what no benchmark wrote: name another disk");
  }
  const std::uint64_t used_before = db.stats().used_pages;
  return BenchTree(db, TRY(db.tree(kTreeName, true)), used_before);
}

Result<> BenchTree::remove() {
  if (Result<> dropped = db_->drop_tree(kTreeName); !dropped) {
    return std::move(dropped).error().with_context("removing the benchmark's records (the next one on this disk tries again)");
  }
  wait_for_pages(*db_, used_before_);
  return {};
}

}  // namespace kelda::tools
