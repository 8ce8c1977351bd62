#include "server/keyspace.h"

#include <mutex>

#include "btree/btree.h"

namespace kelda::server {

static_assert(kMaxKeyBytes == btree::kMaxKeyBytes);
static_assert(kMaxValueBytes + kMaxStoredHeaderBytes == btree::kMaxValueBytes);

void KeySpace::lower_next_expiry(std::int64_t expire_ms) {
  std::int64_t seen = next_expiry_ms.load(std::memory_order_relaxed);
  while (expire_ms < seen && !next_expiry_ms.compare_exchange_weak(seen, expire_ms, std::memory_order_relaxed)) {
  }
}

Keyspace::~Keyspace() {
  for (auto& space : spaces_) delete space.load(std::memory_order_relaxed);
}

Result<KeySpace*> Keyspace::open_space(std::uint32_t index, bool create) {
  const std::string name = "kv." + std::to_string(index);
  auto data = database_.tree(name, create);
  if (!data && data.failed_with(Code::kNotFound) && !create) return nullptr;
  const Tree data_tree = TRY(std::move(data));
  // Created after the data tree and missing if a crash came between the two.
  const Tree expiry_tree = TRY(database_.tree(name + ".expiry", true));
  auto* space = new KeySpace{index, data_tree, expiry_tree};
  spaces_[index].store(space, std::memory_order_release);
  return space;
}

Result<> Keyspace::open() {
  for (std::uint32_t index = 0; index < kDatabaseCount; ++index) TRY(open_space(index, false));
  return {};
}

Result<KeySpace*> Keyspace::find_or_create(std::uint32_t index) {
  if (KeySpace* space = find(index)) return space;
  const std::scoped_lock guard(opening_);
  if (KeySpace* space = find(index)) return space;
  return open_space(index, true);
}

std::uint64_t Keyspace::key_count(std::uint32_t index) const {
  const KeySpace* space = find(index);
  return space == nullptr ? 0 : database_.count(space->data);
}

std::uint64_t Keyspace::expiry_count(std::uint32_t index) const {
  const KeySpace* space = find(index);
  return space == nullptr ? 0 : database_.count(space->expiry);
}

}  // namespace kelda::server
