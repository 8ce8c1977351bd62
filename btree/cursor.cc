#include "btree/descent.h"
#include "btree/node_edit.h"
#include "btree/overflow.h"
#include "common/planted_bug.h"

namespace kelda::btree {

namespace {

constexpr std::size_t kMaxReadAhead = 16;  // leaves

// Children beside the one that was taken on the lowest inner level, in the direction of a scan.
struct ReadAhead {
  std::array<PageId, kMaxReadAhead> pages;
  std::size_t count = 0;

  void note(NodeView node, unsigned child, bool forward, std::size_t wanted) {
    count = 0;
    const unsigned children = node.count() + 1;
    while (count < wanted && count < pages.size()) {
      child = forward ? child + 1 : child - 1;  // below 0 wraps and ends it
      if (child >= children) break;
      pages[count++] = node.child(child);
    }
  }
};

}  // namespace

struct Cursor::Impl {
  enum class Side : std::uint8_t { kAt, kBelow, kLast };  // of the key that is looked for

  explicit Impl(const BTree& tree) : env(tree.env_), id(tree.id_), root(tree.root_) {}

  NodeView node() const { return NodeView(page); }
  bool is_current() const { return leaf.page != kNoPage && (validate(env, leaf) || planted(Bug::kStaleCursor)); }

  // Copies the leaf that covers `target` (kBelow: the keys just below it; kLast: the last leaf).
  Result<> load(Bytes target, Side side, bool reading_on, bool forward);
  Result<bool> settle(unsigned at);
  // Is the copy the leaf that was asked for? So each leaf that a scan goes on to lies beyond the one before.
  bool is_wanted(Bytes target, Side side) const;
  Result<bool> forward_from(unsigned at);
  Result<bool> backward_from(unsigned at);
  void prefetch();

  TreeEnv env;
  TreeId id;
  PageId root;
  NodeRef leaf;         // where the copy is from
  unsigned slot = 0;
  bool valid = false;
  std::size_t leaves_in_row = 0;
  Lsn lsn;
  std::string key, fence, value;
  ReadAhead ahead;
  alignas(64) std::byte page[kPageBytes];
};

Result<> Cursor::Impl::load(Bytes target, Side side, bool reading_on, bool forward) {
  leaves_in_row = reading_on ? leaves_in_row + 1 : 0;
  const std::size_t wanted = reading_on ? std::min(kMaxReadAhead, std::size_t{1} << std::min<std::size_t>(leaves_in_row, 8)) : 0;
  const auto choose = [&](NodeView inner) {
    const unsigned child = side == Side::kLast ? inner.count() : side == Side::kAt ? child_for(inner, target) : child_before(inner, target);
    if (wanted > 0 && inner.level() == 1) ahead.note(inner, child, forward, wanted);
    return child;
  };
  Path path;
  for (unsigned attempt = 0;; ++attempt) {
    ahead.count = 0;
    const Walk walk = descend(env, id, root, 0, choose, path);
    if (walk == Walk::kFailed) return std::move(path.error);
    if (walk == Walk::kOk) {
      if (attempt < kOptimisticTries) {
        bufferpool::racy_copy(page, env.pool.data(path.node.page), kPageBytes);
        if (validate(env, path.node)) break;
      } else {
        auto guard = bufferpool::SharedGuard::take(env.pool, path.node.page);
        const bool right = path.parent.page != kNoPage ? validate(env, path.parent) : guard && NodeView(guard->data()).is_leaf();
        if (right && !guard) return std::move(guard).error();
        if (right) {
          std::memcpy(page, guard->data(), kPageBytes);
          // Under the latch the version stands still.
          if (env.pool.optimistic_begin(path.node.page, path.node.version)) break;
        }
      }
    }
    after_restart(attempt);
  }
  leaf = path.node;
  if (!is_wanted(target, side)) return corrupt_page(leaf.page, kFencesDisagree);
  lsn = std::max(lsn, node().lsn());
  if (ahead.count > 0) prefetch();
  return {};
}

bool Cursor::Impl::is_wanted(Bytes target, Side side) const {
  switch (side) {
    case Side::kAt: return covers(node(), target);
    case Side::kBelow:
      return compare_bytes(node().lower(), target) < 0 &&
             (node().upper().empty() || compare_bytes(target, node().upper()) <= 0);
    case Side::kLast: return node().upper().empty();
  }
  return false;
}

void Cursor::Impl::prefetch() {
  std::size_t absent = 0;
  for (std::size_t i = 0; i < ahead.count; ++i) {
    std::uint64_t version;
    if (!env.pool.optimistic_begin(ahead.pages[i], version)) ahead.pages[absent++] = ahead.pages[i];
  }
  if (absent > 0) env.pool.prefetch(std::span(ahead.pages).first(absent));
}

Result<bool> Cursor::Impl::settle(unsigned at) {
  slot = at;
  valid = true;
  key.assign(as_view(node().prefix()));
  key += as_view(node().suffix(at));
  return true;
}

// Settles on slot `at` of the copy or, beyond its end, on the first key of what follows.
Result<bool> Cursor::Impl::forward_from(unsigned at) {
  while (at >= node().count()) {
    fence.assign(as_view(node().upper()));
    if (fence.empty()) return valid = false;
    TRY(load(as_bytes(fence), Side::kAt, true, true));
    at = lower_bound(node(), as_bytes(fence)).slot;
  }
  return settle(at);
}

// Settles on the slot before `at`, or on the last key of what is left of the copy.
Result<bool> Cursor::Impl::backward_from(unsigned at) {
  while (at == 0) {
    fence.assign(as_view(node().lower()));
    if (fence.empty()) return valid = false;
    TRY(load(as_bytes(fence), Side::kBelow, true, false));
    at = lower_bound(node(), as_bytes(fence)).slot;
  }
  return settle(at - 1);
}

Cursor::Cursor(BTree& tree) : impl_(std::make_unique<Impl>(tree)) {}
Cursor::~Cursor() = default;
Cursor::Cursor(Cursor&&) noexcept = default;

Result<bool> Cursor::seek(Bytes key) {
  TRY(impl_->load(key, Impl::Side::kAt, false, true));
  return impl_->forward_from(lower_bound(impl_->node(), key).slot);
}

Result<bool> Cursor::seek_back(Bytes key) {
  if (key.empty()) {
    TRY(impl_->load(key, Impl::Side::kLast, false, false));
    return impl_->backward_from(impl_->node().count());
  }
  TRY(impl_->load(key, Impl::Side::kAt, false, false));
  const Position at = lower_bound(impl_->node(), key);
  return impl_->backward_from(at.slot + at.exact);
}

Result<bool> Cursor::next() {
  Impl& c = *impl_;
  if (!c.valid) return false;
  if (c.is_current()) return c.forward_from(c.slot + 1);
  TRY(c.load(as_bytes(c.key), Impl::Side::kAt, false, true));
  const Position at = lower_bound(c.node(), as_bytes(c.key));
  return c.forward_from(at.slot + at.exact);
}

Result<bool> Cursor::prev() {
  Impl& c = *impl_;
  if (!c.valid) return false;
  if (c.is_current()) return c.backward_from(c.slot);
  TRY(c.load(as_bytes(c.key), Impl::Side::kAt, false, false));
  return c.backward_from(lower_bound(c.node(), as_bytes(c.key)).slot);
}

bool Cursor::valid() const { return impl_->valid; }
Bytes Cursor::key() const { return as_bytes(impl_->key); }
Lsn Cursor::page_lsn() const { return impl_->lsn; }

Result<Bytes> Cursor::value() {
  Impl& c = *impl_;
  if (!c.valid) return Error(Code::kNotFound, "the cursor is on no key");
  std::optional<OverflowRef> damaged;
  for (;;) {
    if (damaged || !c.is_current()) {
      TRY(c.load(as_bytes(c.key), Impl::Side::kAt, false, true));
      const Position at = lower_bound(c.node(), as_bytes(c.key));
      if (!at.exact) {
        c.leaf = {};  // the copy is not at the key: the next step looks for it again
        return Code::kNotFound;
      }
      c.slot = at.slot;
    }
    const NodeView::Value stored = c.node().value(c.slot);
    if (!stored.is_overflow) return stored.bytes;
    const OverflowRef ref = OverflowRef::decode(stored.bytes);
    if (damaged == ref || !ref.plausible(c.env.space.page_count())) {
      return corrupt_page(ref.page, "not the overflow value that its leaf refers to");
    }
    const auto read = read_overflow(c.env, ref, c.value);
    if (read) return as_bytes(c.value);
    if (!read.failed_with(Code::kRestart)) return read.error();
    damaged = ref;  // unless it was replaced meanwhile
  }
}

}  // namespace kelda::btree
