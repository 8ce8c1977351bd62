// Sizes that the server promises to its users. The engine's own limits are the source of the first two; keyspace.cc
// checks at compile time that they agree.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/types.h"

namespace kelda::server {

// Sixteen, as every Redis client expects of an untouched configuration.
inline constexpr std::uint32_t kDatabaseCount = 16;

inline constexpr std::size_t kMaxKeyBytes = 1024;
// A stored value is a header and the payload (docs/format-kv.md); the payload's bound leaves room for the longest
// header, so that giving an expiry to a value can never make it too large.
inline constexpr std::size_t kMaxStoredHeaderBytes = 16;
inline constexpr std::size_t kMaxValueBytes = 1_MiB - kMaxStoredHeaderBytes;

// Protocol bounds. The first three are Redis's own.
inline constexpr std::size_t kMaxInlineRequestBytes = 64_KiB;
inline constexpr std::int64_t kMaxArguments = 1024 * 1024;
inline constexpr std::int64_t kMaxBulkBytes = 512ll << 20;
// Before AUTH a client may only send little.
inline constexpr std::int64_t kMaxUnauthenticatedArguments = 10;
inline constexpr std::int64_t kMaxUnauthenticatedBulkBytes = 16384;

}  // namespace kelda::server
