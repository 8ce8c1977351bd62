// A listening socket whose connections are dealt out to cores. See acceptor_hosted.cc.
#pragma once

#include "net/address.h"
#include "net/net.h"

namespace kelda::net {

Result<std::unique_ptr<Listener>> listen_hosted(Endpoint endpoint, std::uint32_t core_count,
                                                const PeerTimeouts& peers);

}  // namespace kelda::net
