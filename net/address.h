// IPv4 endpoints as text and back. No name resolution: an endpoint is spelled out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/result.h"

namespace kelda::net {

struct Endpoint {
  std::uint32_t address = 0;  // host byte order; 0 is "any"
  std::uint16_t port = 0;
  std::string to_string() const;
};

struct Subnet {
  std::uint32_t address = 0;  // host byte order
  std::uint32_t prefix_bits = 0;
  std::uint32_t mask() const { return prefix_bits == 0 ? 0 : ~std::uint32_t{0} << (32 - prefix_bits); }
};

// "127.0.0.1:6379", "localhost:6379", "*:6379", ":6379". kInvalidArgument says what is wrong.
Result<Endpoint> parse_endpoint(std::string_view text);
// "10.0.0.2/24".
Result<Subnet> parse_subnet(std::string_view text);
Result<std::uint32_t> parse_ipv4(std::string_view text);
std::string ipv4_to_string(std::uint32_t address);

}  // namespace kelda::net
