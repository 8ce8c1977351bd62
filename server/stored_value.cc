#include "server/stored_value.h"

#include <cstring>

#include "common/checksum.h"

namespace kelda::server {

namespace {

constexpr std::uint8_t kTypeMask = 0x0f;
constexpr std::uint8_t kHasExpiry = 0x10;
constexpr std::size_t kExpiryBytes = 8;
constexpr std::size_t kHashBytes = 8;
constexpr std::size_t kIndexedKeyBytes = kMaxKeyBytes - kExpiryBytes - kHashBytes;

static_assert(1 + kExpiryBytes <= kMaxStoredHeaderBytes);

void append_big_endian(std::string& out, std::uint64_t value) {
  for (int shift = 56; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
}

bool all_zero(std::string_view text) {
  return text.find_first_not_of('\0') == std::string_view::npos;
}

}  // namespace

bool StoredValue::decode() {
  if (raw.empty()) return false;
  const auto head = static_cast<std::uint8_t>(raw[0]);
  if ((head & kTypeMask) != static_cast<std::uint8_t>(ValueType::kString)) return false;
  if ((head & ~(kTypeMask | kHasExpiry)) != 0) return false;
  if ((head & kHasExpiry) == 0) {
    expire_ms = kNoExpiry;
    header_bytes = 1;
    return true;
  }
  if (raw.size() < 1 + kExpiryBytes) return false;
  std::memcpy(&expire_ms, raw.data() + 1, kExpiryBytes);  // little-endian, as the machine is
  header_bytes = 1 + kExpiryBytes;
  return true;
}

void encode_value(std::string& out, std::string_view payload, std::int64_t expire_ms) {
  out.clear();
  if (expire_ms == kNoExpiry) {
    out.push_back(static_cast<char>(ValueType::kString));
  } else {
    out.push_back(static_cast<char>(static_cast<std::uint8_t>(ValueType::kString) | kHasExpiry));
    out.append(reinterpret_cast<const char*>(&expire_ms), kExpiryBytes);
  }
  out.append(payload);
}

std::string_view stored_key(std::string_view key, std::string& scratch) {
  if (!key.empty() && (key[0] != '\0' || !all_zero(key))) return key;
  scratch.assign(key.size() + 1, '\0');
  return scratch;
}

std::string_view user_key(std::string_view stored) {
  if (!stored.empty() && stored[0] == '\0' && all_zero(stored)) stored.remove_suffix(1);
  return stored;
}

void encode_expiry(ExpiryEntry& out, std::int64_t expire_ms, std::string_view stored_key) {
  out.key.clear();
  out.value.clear();
  append_big_endian(out.key, static_cast<std::uint64_t>(expire_ms));
  if (kExpiryBytes + stored_key.size() <= kMaxKeyBytes) {
    out.key.append(stored_key);
    return;
  }
  out.key.append(stored_key.substr(0, kIndexedKeyBytes));
  append_big_endian(out.key, checksum64(as_bytes(stored_key), 0));
  out.value.assign(stored_key);
}

std::optional<DecodedExpiry> decode_expiry(std::string_view key, std::string_view value) {
  if (key.size() <= kExpiryBytes) return std::nullopt;
  std::uint64_t expire_ms = 0;
  for (std::size_t i = 0; i < kExpiryBytes; ++i) expire_ms = expire_ms << 8 | static_cast<std::uint8_t>(key[i]);
  return DecodedExpiry{static_cast<std::int64_t>(expire_ms), value.empty() ? key.substr(kExpiryBytes) : value};
}

}  // namespace kelda::server
