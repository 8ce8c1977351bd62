// The way down a tree by optimistic lock coupling (Leis et al., "Optimistic Lock Coupling", 2019).
//
// Contract: a node is entered by reading its version; then its parent is validated: at that moment the parent still
// pointed to the child, so the version belongs to the right child. What is read from a node counts once its own version
// is validated. A restart is a value. Nothing is latched; only the slow path (page absent or latched) waits, and then
// nothing read before is used without validation.
#pragma once

#include "btree/btree.h"
#include "btree/node_search.h"
#include "btree/space.h"
#include "bufferpool/pool_inline.h"

namespace kelda::btree {

struct NodeRef {
  PageId page;
  std::uint64_t version = 0;
};

enum class Walk : std::uint8_t { kOk, kRestart, kFailed };

struct Path {
  NodeRef node;
  NodeRef parent;            // page kNoPage: the node is the root
  unsigned child_index = 0;  // of the node in its parent
  Error error{Code::kRestart};  // of kFailed
};

// Optimistic attempts before a leaf is latched instead, and before the core's other fibers get a turn.
inline constexpr unsigned kOptimisticTries = 32;
inline constexpr unsigned kTriesBetweenYields = 16;

inline constexpr char kFencesDisagree[] = "its fences are not those of its parent";

inline Error corrupt_page(PageId page, const char* what) {
  return Error(Code::kCorrupt, "page " + std::to_string(page.value) + ": " + what);
}

// The cold side of a step to a page that is absent or latched: waits, once the pointer to it proved right.
Walk enter_slowly(const TreeEnv& env, NodeRef& node, const NodeRef* parent, Path& path);
// A node does not look like what its parent promised: corrupt if that was no torn read.
Walk suspect(const TreeEnv& env, const NodeRef& node, const char* what, Path& path);

inline bool validate(const TreeEnv& env, const NodeRef& node) {
  return env.pool.optimistic_validate(node.page, node.version);
}
inline NodeView view_of(const TreeEnv& env, const NodeRef& node) { return NodeView(env.pool.data(node.page)); }

// The lines that a search in a node touches first.
inline void prefetch_node(const std::byte* page) {
  __builtin_prefetch(page);
  __builtin_prefetch(page + 64);
  __builtin_prefetch(page + 128);
  __builtin_prefetch(page + 192);
  __builtin_prefetch(page + 256);
  __builtin_prefetch(page + 320);
}

// Goes to the node of `level` that `choose(NodeView) -> child number` leads to. On kOk path.node is entered and not yet
// validated; its level is. A tree lower than `level`: kFailed with kNotFound.
template <class Choose>
inline Walk descend(const TreeEnv& env, TreeId id, PageId root, unsigned level, Choose choose, Path& path) {
  NodeRef node{root, 0};
  path.parent = {};
  if (!env.pool.optimistic_begin(node.page, node.version)) [[unlikely]] {
    if (const Walk walk = enter_slowly(env, node, nullptr, path); walk != Walk::kOk) return walk;
  }
  NodeView view = view_of(env, node);
  if (!view.is_node() || view.tree() != id) [[unlikely]] return suspect(env, node, "not the root of its tree", path);
  unsigned at = view.level();
  for (;;) {
    if (at <= level) {
      path.node = node;
      if (at == level) [[likely]] return Walk::kOk;
      if (!validate(env, node)) return Walk::kRestart;
      path.error = Error(Code::kNotFound);
      return Walk::kFailed;
    }
    const unsigned index = choose(view);
    NodeRef child{view.child(index), 0};
    if (child.page.value >= env.space.page_count() || child.page == kNoPage) [[unlikely]] {
      return suspect(env, node, "a child pointer leads out of the disk", path);
    }
    prefetch_node(env.pool.data(child.page));
    if (!env.pool.optimistic_begin(child.page, child.version)) [[unlikely]] {
      if (const Walk walk = enter_slowly(env, child, &node, path); walk != Walk::kOk) return walk;
    }
    if (!validate(env, node)) [[unlikely]] return Walk::kRestart;
    view = view_of(env, child);
    if (!view.is_node() || view.level() + 1 != at || view.tree() != id) [[unlikely]] {
      return suspect(env, child, "a node of another tree or level", path);
    }
    path.parent = node;
    path.child_index = index;
    node = child;
    --at;
  }
}

inline Walk descend_to(const TreeEnv& env, TreeId id, PageId root, unsigned level, Bytes key, Path& path) {
  return descend(env, id, root, level, [key](NodeView node) { return child_for(node, key); }, path);
}

// After a restart: gives others a turn now and then.
void after_restart(unsigned attempt);

// An exclusive latch on the node of a path, from its version. False: restart.
inline bool try_latch(const TreeEnv& env, const NodeRef& node) { return env.pool.try_upgrade(node.page, node.version); }

}  // namespace kelda::btree
