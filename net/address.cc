#include "net/address.h"

#include <charconv>

namespace kelda::net {
namespace {

// A decimal number in [0, limit] that fills the whole text.
bool parse_number(std::string_view text, std::uint32_t limit, std::uint32_t& out) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size() && out <= limit;
}

Error bad(std::string_view text, const char* expected) {
  return Error(Code::kInvalidArgument, "'" + std::string(text) + "' is not " + expected);
}

}  // namespace

Result<std::uint32_t> parse_ipv4(std::string_view text) {
  std::uint32_t address = 0;
  std::string_view rest = text;
  for (int i = 0; i < 4; ++i) {
    const std::size_t dot = i < 3 ? rest.find('.') : rest.size();
    std::uint32_t part = 0;
    if (dot == std::string_view::npos || !parse_number(rest.substr(0, dot), 255, part))
      return bad(text, "an IPv4 address like 10.0.0.2");
    address = address << 8 | part;
    rest.remove_prefix(i < 3 ? dot + 1 : dot);
  }
  return address;
}

Result<Endpoint> parse_endpoint(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  std::uint32_t port = 0;
  if (colon == std::string_view::npos || !parse_number(text.substr(colon + 1), 65535, port))
    return bad(text, "ADDRESS:PORT, like 127.0.0.1:6379");
  Endpoint endpoint{0, static_cast<std::uint16_t>(port)};
  const std::string_view host = text.substr(0, colon);
  if (host == "localhost") {
    endpoint.address = 0x7f000001;
  } else if (!host.empty() && host != "*") {
    endpoint.address = TRY(parse_ipv4(host));
  }
  return endpoint;
}

Result<Subnet> parse_subnet(std::string_view text) {
  const std::size_t slash = text.find('/');
  Subnet subnet;
  if (slash == std::string_view::npos || !parse_number(text.substr(slash + 1), 32, subnet.prefix_bits))
    return bad(text, "an address with its prefix length, like 10.0.0.2/24");
  subnet.address = TRY(parse_ipv4(text.substr(0, slash)));
  return subnet;
}

std::string ipv4_to_string(std::uint32_t address) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) {
    if (shift != 24) text += '.';
    text += std::to_string(address >> shift & 0xff);
  }
  return text;
}

std::string Endpoint::to_string() const { return ipv4_to_string(address) + ":" + std::to_string(port); }

}  // namespace kelda::net
