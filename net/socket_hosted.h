// A Linux TCP socket as a Connection. See sockets_hosted.cc.
#pragma once

#include <netinet/in.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "net/address.h"
#include "net/dealer.h"
#include "net/net.h"
#include "net/uring_wait_hosted.h"

namespace kelda::net {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

sockaddr_in to_sockaddr(Endpoint endpoint);
Endpoint to_endpoint(const sockaddr_in& address);
// An error of the operating system in words.
Error system_error(Code code, const std::string& what, int error_number);
// With no delay and the time-outs; on a listening socket, accepted ones inherit them.
Result<FileDescriptor> make_tcp_socket(const PeerTimeouts& peers);

class SocketConnection : public Connection {
 public:
  SocketConnection(FileDescriptor socket, Endpoint peer, Dealer::Seat seat)
      : socket_(std::move(socket)), peer_(peer), seat_(std::move(seat)) {}

  Result<> connect(Endpoint endpoint, runtime::TimeNs deadline_ns);

  Result<std::size_t> read(MutableBytes out, runtime::TimeNs deadline_ns) override;
  Result<> write(std::span<const Bytes> pieces, runtime::TimeNs deadline_ns) override;
  void finish_writing() override;
  void shut_down() override;
  std::string peer() const override { return peer_.to_string(); }
  Presence presence() override;
  int descriptor() const override { return socket_.get(); }

 private:
  runtime::Ring* ring();
  // The count, or a negative errno.
  int receive_some(MutableBytes out, runtime::TimeNs deadline_ns);
  int send_some(iovec* pieces, std::size_t count, runtime::TimeNs deadline_ns);
  Error failed(int negative_errno) const;

  FileDescriptor socket_;
  const Endpoint peer_;
  Dealer::Seat seat_;
  runtime::Ring* ring_ = nullptr;  // of the core that uses the connection
  bool ring_is_known_ = false;
  bool shut_ = false;
  UringWait reading_, writing_;
};

}  // namespace kelda::net
