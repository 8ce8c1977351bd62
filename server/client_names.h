// What a client, and its library, may call itself.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kelda::server {

inline constexpr std::size_t kMaxClientNameBytes = 256;

// Empty if the text will do: printable ASCII without blanks, as it must stay one word in CLIENT LIST, and short, as it is
// kept for every client. Else the error, which speaks of `what`.
inline std::string client_name_fault(std::string_view name, std::string_view what) {
  if (name.size() > kMaxClientNameBytes) {
    return "ERR " + std::string(what) + " cannot be longer than " + std::to_string(kMaxClientNameBytes) + " bytes.";
  }
  for (const char c : name) {
    if (c < '!' || c > '~') return "ERR " + std::string(what) + " cannot contain spaces, newlines or special characters.";
  }
  return {};
}

}  // namespace kelda::server
