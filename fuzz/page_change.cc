// Redo of log payloads on sound pages: a change that does not fit its page is kCorrupt, and a page that was changed is
// sound again.
#include "common/assert.h"
#include "btree/ops.h"
#include "btree/space_map.h"
#include "fuzz/fuzz_target.h"
#include "fuzz/node_builder.h"

namespace kelda::fuzz {

namespace {

constexpr std::uint8_t kOps[] = {1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 18, 24};

// The image of a second node, as redo of a merge wants it; or any bytes.
std::string image(Input& input) {
  alignas(8) std::byte right[kPageBytes];
  build_node(right, input);
  btree::compact_node(right);
  const btree::NodeImage made(right);
  const wal::PageChange change = made.change(PageId(7), btree::PageOp::kMergeRight);
  std::string payload;
  for (const Bytes part : {change.first, change.second, change.third}) payload += as_view(part);
  return payload;
}

void run(Bytes bytes) {
  Input input(bytes);
  alignas(kPageBytes) static std::byte page[kPageBytes];
  if (const std::uint8_t kind = input.byte(); kind % 4 == 3) {
    btree::format_space_map(page);
  } else {
    build_node(page, input);
    if (kind % 4 == 2) patch(page, input, 4);
    if (!btree::check_node(btree::NodeView(page))) return;
  }
  for (unsigned i = 0; i < 20 && !input.empty(); ++i) {
    const std::uint8_t choice = input.byte();
    const std::uint8_t op = kOps[choice % std::size(kOps)];
    std::string payload = choice >= 192 ? image(input) : input.text();
    if (choice >= 224 && !payload.empty()) patch({reinterpret_cast<std::byte*>(payload.data()), payload.size()}, input, 2);
    if (!btree::redo_change(op, PageId(7), page, as_bytes(payload))) return;
    const btree::NodeView node(page);
    KELDA_ASSERT(!node.is_node() || op == 24 || btree::check_node(node).has_value());
    if (node.is_node() && op == 24) return;  // a payload that calls itself a node: the next read of the page judges it
  }
}

}  // namespace

const FuzzTarget kPageChange = {"page_change", run};

}  // namespace kelda::fuzz
