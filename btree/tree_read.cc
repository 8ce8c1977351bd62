// Point reads.
#include "btree/descent.h"
#include "btree/overflow.h"
#include "common/planted_bug.h"

namespace kelda::btree {

namespace {

void assign(std::string& value, Bytes bytes) {
  value.resize_and_overwrite(bytes.size(), [&](char* to, std::size_t) {
    bufferpool::racy_copy(to, bytes.data(), bytes.size());
    return bytes.size();
  });
}

// Reads of one key. `Take` gets the leaf's value while it is still unvalidated; `MayUse` as in BTree::lookup.
struct LeafRead {
  const TreeEnv& env;
  TreeId id;
  PageId root;
  Bytes key;
  Lsn lsn;
  bool found = false;

  // kOk: what `take` saw is one consistent state of the right leaf, and may be used if `allowed`.
  template <class Take, class MayUse>
  Walk run(Take take, MayUse may_use, bool& allowed, Path& path) {
    const Walk walk = descend_to(env, id, root, 0, key, path);
    if (walk != Walk::kOk) [[unlikely]] return walk;
    if (!read(NodeView(env.pool.data(path.node.page)), take)) [[unlikely]] return suspect(env, path.node, kFencesDisagree, path);
    allowed = may_use();
    return validate(env, path.node) || planted(Bug::kReadNotValidated) ? Walk::kOk : Walk::kRestart;
  }

  // The same when the leaf keeps changing: waits in line for it.
  template <class Take, class MayUse>
  Walk run_latched(Take take, MayUse may_use, bool& allowed, Path& path) {
    const Walk walk = descend_to(env, id, root, 0, key, path);
    if (walk != Walk::kOk) return walk;
    auto leaf = bufferpool::SharedGuard::take(env.pool, path.node.page);
    const bool right = path.parent.page != kNoPage ? validate(env, path.parent) : leaf && NodeView(leaf->data()).is_leaf();
    if (!right) return Walk::kRestart;
    if (!leaf) {
      path.error = std::move(leaf).error();
      return Walk::kFailed;
    }
    if (!read(NodeView(leaf->data()), take)) {
      path.error = corrupt_page(path.node.page, kFencesDisagree);
      return Walk::kFailed;
    }
    allowed = may_use();
    return Walk::kOk;
  }

 private:
  // False: it is not the key's leaf.
  template <class Take>
  bool read(NodeView leaf, Take take) {
    const Position at = lower_bound(leaf, key);
    found = at.exact;
    lsn = leaf.lsn();
    if (at.exact) take(leaf.value(at.slot));
    return is_home_of(leaf, key, at) || planted(Bug::kReadsForeignLeaf);
  }
};

template <class Take, class MayUse>
Result<bool> read_key(LeafRead& read, Take take, MayUse may_use) {
  Path path;
  for (unsigned attempt = 0;; ++attempt) {
    bool allowed = true;
    const Walk walk = attempt < kOptimisticTries ? read.run(take, may_use, allowed, path)
                                                 : read.run_latched(take, may_use, allowed, path);
    if (walk == Walk::kOk) [[likely]] {
      if (!allowed) return Code::kConflict;
      return read.found;
    }
    if (walk == Walk::kFailed) {
      // A tree that was dropped meanwhile has pages of others: the caller's lock knows.
      if (!may_use()) return Code::kConflict;
      return std::move(path.error);
    }
    after_restart(attempt);
  }
}

template <class MayUse>
Result<bool> lookup_in(const TreeEnv& env, TreeId id, PageId root, Bytes key, std::string& value, MayUse may_use,
                       Lsn* page_lsn) {
  LeafRead read{env, id, root, key, {}};
  std::optional<OverflowRef> fetched;  // what `value` holds, if an overflow value
  for (;;) {
    std::optional<OverflowRef> reference;
    const bool found = TRY(read_key(
        read,
        [&](NodeView::Value stored) {
          reference.reset();
          if (stored.is_overflow) [[unlikely]] {
            reference = OverflowRef::decode_racy(stored.bytes);
          } else {
            assign(value, stored.bytes);
            fetched.reset();
          }
        },
        may_use));
    if (page_lsn != nullptr) *page_lsn = read.lsn;
    // An overflow value counts when the leaf referred to it after it was read.
    if (!found || !reference || reference == fetched) return found;
    if (!reference->plausible(env.space.page_count())) return Error(Code::kCorrupt, "a leaf refers to no overflow value");
    const auto fetch = read_overflow(env, *reference, value);
    if (fetch) {
      fetched = reference;
      continue;
    }
    if (!fetch.failed_with(Code::kRestart)) return fetch.error();
    // Replaced while it was read, else the leaf still refers to it: damaged.
    std::optional<OverflowRef> again;
    (void)TRY(read_key(
        read,
        [&](NodeView::Value stored) {
          again.reset();
          if (stored.is_overflow) again = OverflowRef::decode_racy(stored.bytes);
        },
        may_use));
    if (read.found && again == reference) {
      return corrupt_page(reference->page, "not the overflow value that its leaf refers to");
    }
  }
}

}  // namespace

Result<bool> BTree::lookup(Bytes key, std::string& value, FunctionRef<bool()> may_use, Lsn* page_lsn) {
  return lookup_in(env_, id_, root_, key, value, may_use, page_lsn);
}

Result<bool> BTree::lookup(Bytes key, std::string& value) {
  return lookup_in(env_, id_, root_, key, value, [] { return true; }, nullptr);
}

Result<std::optional<std::uint64_t>> BTree::value_length(Bytes key) {
  LeafRead read{env_, id_, root_, key, {}};
  std::uint64_t bytes = 0;
  const bool found = TRY(read_key(
      read,
      [&](NodeView::Value stored) {
        bytes = stored.is_overflow ? OverflowRef::decode_racy(stored.bytes).value_bytes : stored.bytes.size();
      },
      [] { return true; }));
  if (!found) return std::optional<std::uint64_t>{};
  return std::optional{bytes};
}

}  // namespace kelda::btree
