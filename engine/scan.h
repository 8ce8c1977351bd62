// Ordered walk over one tree under its transaction's shared lock.
#pragma once

#include <memory>

#include "btree/btree.h"
#include "kelda/kelda.h"

namespace kelda::engine {

// Shared by a transaction and its scans, which may outlive it: they then answer with an error.
struct ScanGate {
  const char* why_shut = nullptr;
  Code code = Code::kAborted;
};

class TreeScan final : public Scan {
 public:
  TreeScan(btree::BTree tree, std::shared_ptr<const ScanGate> gate) : tree_(tree), cursor_(tree_), gate_(std::move(gate)) {}

  Result<bool> seek(std::string_view key) override { return TRY(open()), cursor_.seek(as_bytes(key)); }
  Result<bool> seek_back(std::string_view key) override { return TRY(open()), cursor_.seek_back(as_bytes(key)); }
  Result<bool> next() override { return TRY(open()), cursor_.next(); }
  Result<bool> prev() override { return TRY(open()), cursor_.prev(); }
  std::string_view key() const override { return cursor_.valid() ? as_view(cursor_.key()) : std::string_view(); }
  Result<std::string_view> value() override {
    TRY(open());
    if (!cursor_.valid()) return Error(Code::kNotFound, "the scan is on no key: seek first");
    return as_view(TRY(cursor_.value()));
  }

 private:
  Result<> open() const {
    if (gate_->why_shut != nullptr) return Error(gate_->code, gate_->why_shut);
    return {};
  }

  btree::BTree tree_;
  btree::Cursor cursor_;
  const std::shared_ptr<const ScanGate> gate_;
};

}  // namespace kelda::engine
