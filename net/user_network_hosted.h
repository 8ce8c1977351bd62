// A network for one virtual machine, in a process without privileges: TCP from this computer to the machine.
//
// What it is: a TCP/IP stack (lwIP, the same as the machine's) at the far end of the machine's network card, with a DHCP
// answer and forwarded ports. What it is not: a way from the machine to anywhere.
#pragma once

#include <string>

#include "common/result.h"
#include "net/address.h"

namespace kelda::net {

struct UserNetworkOptions {
  int frame_socket = -1;      // a stream socket to QEMU's -netdev stream; taken over
  std::string listen;         // "127.0.0.1:6379" on this computer ...
  std::uint16_t port = 0;     // ... leads to this port of the machine
};

// In a fiber on core 0. Returns when the machine has gone; fails at once when the port is taken. Calls `ready` when it
// listens.
Result<> serve_user_network(UserNetworkOptions options);

}  // namespace kelda::net
