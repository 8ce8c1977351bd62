// What a client may call itself.
#pragma once

#include <string_view>

namespace kelda::server {

inline constexpr std::string_view kBadClientName =
    "ERR Client names cannot contain spaces, newlines or special characters.";

// Printable ASCII without blanks: it must stay one word in CLIENT LIST.
inline bool valid_client_name(std::string_view name) {
  for (const char c : name) {
    if (c < '!' || c > '~') return false;
  }
  return true;
}

}  // namespace kelda::server
