// "EX 10", "PXAT 1700000000000": when a key is to expire, as SET, GETEX and their relatives take it.
#pragma once

#include <cstdint>
#include <string_view>

#include "server/client.h"

namespace kelda::server {

enum class TimeUnit : std::uint8_t { kSeconds, kMilliseconds };

struct ExpiryOption {
  bool given = false;
  std::int64_t expire_ms = kNoExpiry;  // after resolve()

  // True if argument i is one of EX PX EXAT PXAT and has its number after it. The same word may come again, and the last
  // number counts, as in Redis; another of the four may not.
  bool parse(Call& call, std::size_t i);
  void set(std::string_view number, TimeUnit time_unit, bool is_absolute);
  // Computes expire_ms. False: the error has been replied.
  Result<bool> resolve(Call& call);

 private:
  std::string_view text_;
  TimeUnit unit_ = TimeUnit::kSeconds;
  bool absolute_ = false;
};

// "ERR invalid expire time in 'set' command"
Result<> invalid_expire_time(Call& call);

}  // namespace kelda::server
