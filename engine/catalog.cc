#include "engine/catalog.h"

#include <cstring>

namespace kelda::engine {

namespace {

std::uint64_t load_u64(std::string_view bytes) {
  std::uint64_t value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

std::string encode_u64(std::uint64_t value) { return std::string(reinterpret_cast<const char*>(&value), sizeof value); }

Error corrupt(const char* what) { return Error(Code::kCorrupt, std::string("the catalog holds an invalid ") + what); }

}  // namespace

std::string name_key(std::string_view name) { return "n" + std::string(name); }

std::string dropped_key(TreeId id) { return "d" + encode_u64(__builtin_bswap64(id.value)); }

std::string encode_ref(const TreeRef& ref) { return encode_u64(ref.id.value) + encode_u64(ref.root.value); }

std::string encode_root(PageId root) { return encode_u64(root.value); }

Result<TreeRef> decode_named(std::string_view value) {
  if (value.size() != 16) return corrupt("entry of a tree");
  return TreeRef{TreeId{load_u64(value)}, PageId{load_u64(value.substr(8))}};
}

Result<TreeRef> decode_dropped(std::string_view key, std::string_view value) {
  if (key.size() != 9 || value.size() != 8) return corrupt("entry of a dropped tree");
  return TreeRef{TreeId{__builtin_bswap64(load_u64(key.substr(1)))}, PageId{load_u64(value)}};
}

}  // namespace kelda::engine
