// The one tree that `kelda bench kv` works on, on a disk that may be somebody's.
//
// Contract: a disk that holds anything else is refused, unless that is asked for; then it is left alone. What a benchmark
// that was killed left behind is recognised by its records, not by its name alone, and removed. From a fiber.
#pragma once

#include <cstdint>

#include "kelda/kelda.h"

namespace kelda::tools {

class BenchTree {
 public:
  // kExists: the disk holds other trees and `beside_data` is false, or one of our tree's name that is not ours.
  static Result<BenchTree> make(Database& db, bool beside_data);

  Tree tree() const { return tree_; }
  // Drops the tree and waits until its pages are free again.
  Result<> remove();

 private:
  BenchTree(Database& db, Tree tree, std::uint64_t used_before) : db_(&db), tree_(tree), used_before_(used_before) {}
  Database* db_;
  Tree tree_;
  std::uint64_t used_before_;  // pages
};

}  // namespace kelda::tools
