// A DHCP server for a network of one machine, as a function from frame to frame (RFC 2131).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/types.h"
#include "net/nic.h"

namespace kelda::net {

struct DhcpLease {
  MacAddress server_mac{};
  std::uint32_t server = 0, client = 0, mask = 0;  // host byte order; the server is the gateway as well
};

// The answer to a DISCOVER or REQUEST; nothing for any other frame.
std::optional<std::vector<std::byte>> answer_dhcp(Bytes frame, const DhcpLease& lease);

}  // namespace kelda::net
