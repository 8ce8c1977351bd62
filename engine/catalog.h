// Which trees a database has. The catalog is itself a tree, at a fixed root page, changed only inside transactions.
//
//   key                      value
//   'n' name                 tree id u64, root page u64        a named tree
//   'd' tree id big-endian   root page u64                     a dropped tree whose pages are still to be reclaimed
//
// A TreeEntry stands for a named tree while the database is open; emptying a tree gives it a new id and root.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>

#include "btree/btree.h"
#include "engine/tree_lock.h"

namespace kelda::engine {

inline constexpr TreeId kCatalogTreeId{1};
inline constexpr PageId kCatalogRoot{1};
inline constexpr std::size_t kMaxTreeNameBytes = 255;

// Where a tree is at the moment. Immutable: whoever holds the pointer sees id and root of the same tree.
struct TreeRef {
  TreeId id;
  PageId root;
};

struct TreeEntry {
  TreeEntry(std::string n, std::uint64_t o, const TreeRef* r) : name(std::move(n)), ordinal(o), ref(r) {}
  const std::string name;
  const std::uint64_t ordinal;  // seeds the lock hash; unique while the database is open
  // Swapped when a transaction that emptied the tree commits (its exclusive lock is held then). Null: dropped.
  std::atomic<const TreeRef*> ref;
  // What the open transaction that has emptied the tree will put there; null: there is none. For count() only.
  std::atomic<const TreeRef*> emptied{nullptr};
  // LSN of that commit, stored before ref: whoever sees the new tree waits for it before telling anyone.
  std::atomic<std::uint64_t> replaced_lsn{0};
  TreeLock lock;
};

std::string name_key(std::string_view name);
std::string dropped_key(TreeId id);
std::string encode_ref(const TreeRef& ref);
std::string encode_root(PageId root);
// kCorrupt when the catalog holds something else.
Result<TreeRef> decode_named(std::string_view value);
Result<TreeRef> decode_dropped(std::string_view key, std::string_view value);

}  // namespace kelda::engine
