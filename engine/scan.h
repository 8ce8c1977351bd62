// Ordered walk over one tree under its transaction's shared lock.
#pragma once

#include "btree/btree.h"
#include "kelda/kelda.h"

namespace kelda::engine {

class TreeScan final : public Scan {
 public:
  explicit TreeScan(btree::BTree tree) : tree_(tree), cursor_(tree_) {}

  Result<bool> seek(std::string_view key) override { return cursor_.seek(as_bytes(key)); }
  Result<bool> seek_back(std::string_view key) override { return cursor_.seek_back(as_bytes(key)); }
  Result<bool> next() override { return cursor_.next(); }
  Result<bool> prev() override { return cursor_.prev(); }
  std::string_view key() const override { return as_view(cursor_.key()); }
  Result<std::string_view> value() override { return as_view(TRY(cursor_.value())); }

 private:
  btree::BTree tree_;
  btree::Cursor cursor_;
};

}  // namespace kelda::engine
