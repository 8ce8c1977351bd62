// Types for what must not be mixed, and the constants that every layer shares.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

namespace kelda {

inline constexpr std::size_t kPageBytes = 4096;

// A number with a meaning: comparable with its own kind, never converted silently.
template <class Tag>
struct StrongId {
  std::uint64_t value = 0;
  constexpr StrongId() = default;
  constexpr explicit StrongId(std::uint64_t v) : value(v) {}
  constexpr auto operator<=>(const StrongId&) const = default;
};

// Index of a 4 KiB page in the page area; also its index in the pool's virtual region. Page 0 is never a tree page.
using PageId = StrongId<struct PageIdTag>;
// Index of a physical frame that belongs to the pool.
using FrameId = StrongId<struct FrameIdTag>;
// Guest-physical address (bare only).
using PhysAddr = StrongId<struct PhysAddrTag>;
// Global sequence number of a log record: dense, starts at 1; 0 means "before the log".
using Lsn = StrongId<struct LsnTag>;
using TxnId = StrongId<struct TxnIdTag>;
using TreeId = StrongId<struct TreeIdTag>;

inline constexpr PageId kNoPage{0};
inline constexpr Lsn kNoLsn{0};
inline constexpr TxnId kNoTxn{0};

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

inline Bytes as_bytes(std::string_view s) { return {reinterpret_cast<const std::byte*>(s.data()), s.size()}; }
inline std::string_view as_view(Bytes b) { return {reinterpret_cast<const char*>(b.data()), b.size()}; }

constexpr std::uint64_t round_up(std::uint64_t n, std::uint64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
constexpr std::uint64_t round_down(std::uint64_t n, std::uint64_t multiple) { return n / multiple * multiple; }

inline constexpr std::uint64_t operator""_KiB(unsigned long long n) { return n << 10; }
inline constexpr std::uint64_t operator""_MiB(unsigned long long n) { return n << 20; }
inline constexpr std::uint64_t operator""_GiB(unsigned long long n) { return n << 30; }

}  // namespace kelda

template <class Tag>
struct std::hash<kelda::StrongId<Tag>> {
  std::size_t operator()(kelda::StrongId<Tag> id) const noexcept { return std::hash<std::uint64_t>{}(id.value); }
};
