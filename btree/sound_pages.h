// A page store that hands out nothing but pages whose inside is sound.
//
// A checksum says that a page is what was once written, not that it was right: a fault of memory or of a program, or
// someone's hand, may have sealed nonsense. Edits of a node rely on its invariants (N1..N3), so a node that breaks them
// is kCorrupt before anybody touches it. Costs about as much as the page's checksum. What spans several nodes is checked
// where they meet (tree_split.cc, tree_merge.cc, cursor.cc).
#pragma once

#include <memory>

#include "disk/page_store.h"

namespace kelda::btree {

std::unique_ptr<disk::PageStore> only_sound_pages(std::unique_ptr<disk::PageStore> store);

}  // namespace kelda::btree
