// Sound tree nodes out of an input, and sound edits of them.
#pragma once

#include <set>

#include "btree/node_edit.h"
#include "fuzz/input.h"

namespace kelda::fuzz {

// Inserts, replaces or removes one key within the node's fences, if it fits.
inline void edit_node(std::byte* page, Input& input) {
  const btree::NodeView node(page);
  const std::uint8_t what = input.byte();
  std::string key(as_view(node.prefix()));
  key += input.text();
  const std::string value = node.is_leaf() ? input.text() : std::string("\1\0\0\0\0\0", 6);
  const bool inside = btree::compare_bytes(as_bytes(key), node.lower()) >= (node.is_leaf() ? 0 : 1) &&
                      (node.upper().empty() || btree::compare_bytes(as_bytes(key), node.upper()) < 0);
  if (!inside || key.empty()) return;
  const btree::Position at = btree::lower_bound(node, as_bytes(key));
  const auto word = static_cast<std::uint16_t>(value.size());
  if (!at.exact) {
    if (!btree::fits_insert(node, key.size(), value.size())) return;
    btree::insert_cell(page, at.slot, as_bytes(key).subspan(node.prefix_bytes()), word, as_bytes(value));
  } else if (what % 2 == 0) {
    btree::remove_cell(page, at.slot);
  } else if (btree::fits_replace(node, at.slot, value.size())) {
    btree::replace_value(page, at.slot, word, as_bytes(value));
  }
}

inline void build_node(std::byte* page, Input& input) {
  std::memset(page, 0, kPageBytes);
  std::string lower = input.text(), upper = input.text();
  if (!upper.empty() && lower >= upper) upper.clear();
  const unsigned level = input.byte() % 3;
  btree::init_node(page, TreeId(5), level, as_bytes(lower), as_bytes(upper), level > 0 ? PageId(9) : kNoPage);
  for (unsigned count = input.byte() % 64; count > 0 && !input.empty(); --count) edit_node(page, input);
}

}  // namespace kelda::fuzz
