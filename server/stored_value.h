// How a Redis value lies in an engine value. docs/format-kv.md is the document.
//
//   offset 0  u8   low nibble: type (0 = string); high nibble: flags (0x10 = has an expiry)
//   offset 1  u64  expire_ms, milliseconds since 1970 UTC, little-endian; only with the flag
//   then           payload
//
// And how keys lie in the trees:
//   data tree    "kv.N": the Redis key, except that a key of n zero bytes (n = 0: the empty key, which the engine does
//   not
//                take) is stored as n + 1 zero bytes. This keeps the order of keys.
//   expiry tree  "kv.N.expiry": u64 expire_ms big-endian, then the stored key; the value is empty. A key that would not
//   fit
//                is cut to kIndexedKeyBytes, and the 8 bytes after that are the XXH3 of the whole, which is the value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "server/limits.h"

namespace kelda::server {

enum class ValueType : std::uint8_t { kString = 0 };

inline constexpr std::int64_t kNoExpiry = 0;

// A value as it was read. Owns its bytes, so that reading again needs no new memory.
struct StoredValue {
  std::string raw;
  std::int64_t expire_ms = kNoExpiry;
  std::size_t header_bytes = 0;

  std::string_view payload() const { return std::string_view(raw).substr(header_bytes); }
  // Reads the header of `raw`; false when it is not one this version knows.
  bool decode();
  bool expired(std::int64_t now_ms) const { return expire_ms != kNoExpiry && expire_ms <= now_ms; }
};

// Replaces `out` by header and payload.
void encode_value(std::string& out, std::string_view payload, std::int64_t expire_ms);

// The stored form of a key; `scratch` is used when it differs from the key itself.
std::string_view stored_key(std::string_view key, std::string& scratch);
std::string_view user_key(std::string_view stored);

struct ExpiryEntry {
  std::string key;    // of the expiry tree
  std::string value;  // the whole stored key when it did not fit into `key`
};
void encode_expiry(ExpiryEntry& out, std::int64_t expire_ms, std::string_view stored_key);
// When, and the stored key. Nothing if it is not an entry.
struct DecodedExpiry {
  std::int64_t expire_ms;
  std::string_view stored_key;
};
std::optional<DecodedExpiry> decode_expiry(std::string_view key, std::string_view value);

}  // namespace kelda::server
