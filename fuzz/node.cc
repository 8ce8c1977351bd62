// A tree node of any bytes: reading and searching stays in the page, as optimistic readers need. A node that check_node()
// accepts may be edited in every way.
#include "common/assert.h"
#include "btree/node_edit.h"
#include "btree/ops.h"
#include "btree/overflow.h"
#include "fuzz/fuzz_target.h"
#include "fuzz/node_builder.h"

namespace kelda::fuzz {

namespace {

using btree::NodeView;

// Touches what a reader may touch.
std::uint64_t read_all(NodeView node, Bytes key) {
  std::uint64_t sum = node.level() + node.flags() + node.free_bytes();
  const auto add = [&](Bytes bytes) {
    for (const std::byte b : bytes) sum += std::to_integer<unsigned>(b);
  };
  add(node.lower());
  add(node.upper());
  add(node.prefix());
  for (unsigned i = 0; i < node.count(); ++i) {
    add(node.suffix(i));
    const NodeView::Value value = node.value(i);
    add(value.bytes);
    if (value.is_overflow) sum += btree::OverflowRef::decode_racy(value.bytes).value_bytes;
    sum += node.child(i).value;
  }
  sum += node.child(node.count()).value;
  const unsigned child = btree::child_for(node, key);
  KELDA_ASSERT(child <= node.count() && btree::child_before(node, key) <= node.count());
  return sum + child;
}

void edit(std::byte* page, Input& input) {
  for (unsigned i = 0; i < 40 && !input.empty(); ++i) {
    edit_node(page, input);
    const auto sound = btree::check_node(NodeView(page));
    KELDA_ASSERT(sound.has_value());
  }
}

void run(Bytes bytes) {
  Input input(bytes);
  alignas(kPageBytes) static std::byte page[kPageBytes];
  build_node(page, input);
  patch(page, input, input.byte() % 8);
  const std::string key = input.text();
  volatile std::uint64_t sum = read_all(NodeView(page), as_bytes(key));
  (void)sum;
  if (btree::check_node(NodeView(page))) edit(page, input);
}

}  // namespace

const FuzzTarget kNode = {"node", run};

}  // namespace kelda::fuzz
