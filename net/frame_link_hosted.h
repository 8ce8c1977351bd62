// The far end of a virtual machine's network card: Ethernet frames over a stream socket, each after its length in four
// bytes, as QEMU's `-netdev stream` speaks. Asks for an address are answered here.
#pragma once

#include <vector>

#include "net/dhcp_responder.h"
#include "net/nic.h"
#include "net/socket_hosted.h"

namespace kelda::net {

class FrameLink : public Nic {
 public:
  // On the stack's core, in a fiber; likewise destroyed.
  static Result<std::unique_ptr<FrameLink>> start(FileDescriptor socket, const DhcpLease& lease);
  ~FrameLink() override;

  // Set once the machine has gone. Outlives the link.
  std::shared_ptr<runtime::Event> ended() const { return ended_; }

  Info info() const override { return {"frame link", lease_.server_mac, false, true}; }
  std::size_t receive(Sink& sink, std::size_t limit) override;
  bool send(std::span<const Bytes> pieces, PartialChecksum checksum) override;
  void flush() override;
  bool arm_interrupt() override { return next_frame().empty(); }
  void disarm_interrupt() override {}

 private:
  FrameLink(FileDescriptor socket, const DhcpLease& lease)
      : link_(std::move(socket), Endpoint{}, Dealer::Seat()), lease_(lease) {}
  void read_all();
  void write_all();
  Bytes next_frame() const;

  SocketConnection link_;
  const DhcpLease lease_;
  std::vector<std::byte> incoming_, outgoing_;
  std::size_t incoming_start_ = 0;
  bool ending_ = false;
  runtime::Event outgoing_ready_;
  runtime::Completion fibers_;
  std::shared_ptr<runtime::Event> ended_ = std::make_shared<runtime::Event>();
};

}  // namespace kelda::net
