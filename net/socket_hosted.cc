#include "net/socket_hosted.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "net/readiness_hosted.h"

namespace kelda::net {
namespace {

constexpr std::size_t kPiecesAtOnce = 16;
constexpr std::size_t kMostAtOnce = 1 << 30;  // a result is an int

int checked(ssize_t result) { return result < 0 ? -errno : static_cast<int>(result); }

// Without io_uring: tries until it no longer says EAGAIN. -ECANCELED at the deadline.
template <class Try>
int attempt(int socket, Direction direction, runtime::TimeNs deadline_ns, Try try_once) {
  while (true) {
    const int result = try_once();
    if (result != -EAGAIN && result != -EINTR) return result;
    if (result == -EAGAIN && !Readiness::instance().wait(socket, direction, deadline_ns)) return -ECANCELED;
  }
}

int connect_without_waiting(int socket, const sockaddr* address, socklen_t size) {
  const int flags = ::fcntl(socket, F_GETFL);
  ::fcntl(socket, F_SETFL, flags | O_NONBLOCK);
  const int result = checked(::connect(socket, address, size));
  ::fcntl(socket, F_SETFL, flags);
  return result == -EINPROGRESS ? -EAGAIN : result;
}

// Advances past `count` bytes; empty pieces go too.
void skip(iovec*& pieces, std::size_t& piece_count, std::size_t count) {
  while (piece_count > 0 && count >= pieces->iov_len) {
    count -= pieces->iov_len;
    ++pieces;
    --piece_count;
  }
  if (piece_count == 0) return;
  pieces->iov_base = static_cast<char*>(pieces->iov_base) + count;
  pieces->iov_len -= count;
}

}  // namespace

sockaddr_in to_sockaddr(Endpoint endpoint) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(endpoint.port);
  address.sin_addr.s_addr = htonl(endpoint.address);
  return address;
}

Endpoint to_endpoint(const sockaddr_in& address) { return {ntohl(address.sin_addr.s_addr), ntohs(address.sin_port)}; }

Error system_error(Code code, const std::string& what, int error_number) {
  return Error(code, what + ": " + std::strerror(error_number));
}

Result<FileDescriptor> make_tcp_socket(const PeerTimeouts& peers) {
  FileDescriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) return system_error(Code::kIo, "cannot make a socket", errno);
  const auto set = [&](int level, int option, int value) {
    return ::setsockopt(socket.get(), level, option, &value, sizeof value) == 0;
  };
  const int keepalive_s = static_cast<int>(std::clamp(peers.keepalive_s, 1u, 32767u));
  // The last also counts what lies in the kernel's queue when the server has written everything: else a client that
  // never reads, but whose replies fit there, would hold them for ever.
  const bool good = set(IPPROTO_TCP, TCP_NODELAY, 1) && set(SOL_SOCKET, SO_KEEPALIVE, 1) &&
                    set(IPPROTO_TCP, TCP_KEEPIDLE, keepalive_s) && set(IPPROTO_TCP, TCP_KEEPINTVL, std::max(keepalive_s / 3, 1)) &&
                    set(IPPROTO_TCP, TCP_KEEPCNT, 3) &&
                    set(IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(std::min(peers.send_timeout_s, 1'000'000u) * 1000));
  if (!good) return system_error(Code::kIo, "cannot set up a socket", errno);
  return socket;
}

runtime::Ring* SocketConnection::ring() {
  if (!std::exchange(ring_is_known_, true)) ring_ = runtime::Ring::of(runtime::Core::current());
  return ring_;
}

Error SocketConnection::failed(int negative_errno) const {
  switch (-negative_errno) {
    case ECANCELED: return Error(shut_ ? Code::kClosed : Code::kTimeout);
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN: return Error(Code::kClosed);
    case ECONNREFUSED: return Error(Code::kClosed, "nobody listens at " + peer());
    // What the network reports for a connection that has died: the peer or the way to it is gone.
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH: return system_error(Code::kClosed, peer(), -negative_errno);
    default: return system_error(Code::kIo, peer(), -negative_errno);
  }
}

Result<> SocketConnection::connect(Endpoint endpoint, runtime::TimeNs deadline_ns) {
  const sockaddr_in address = to_sockaddr(endpoint);
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  int result;
  if (ring() != nullptr) {
    result = writing_.run(*ring(), deadline_ns, [&](io_uring_sqe* sqe) {
      io_uring_prep_connect(sqe, socket_.get(), generic, sizeof address);
    });
  } else {
    result = attempt(socket_.get(), Direction::kWrite, deadline_ns, [&, first = true]() mutable {
      if (std::exchange(first, false)) return connect_without_waiting(socket_.get(), generic, sizeof address);
      int error = 0;
      socklen_t size = sizeof error;
      ::getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
      return -error;
    });
  }
  if (result < 0) return failed(result);
  return {};
}

int SocketConnection::receive_some(MutableBytes out, runtime::TimeNs deadline_ns) {
  if (ring() == nullptr) {
    return attempt(socket_.get(), Direction::kRead, deadline_ns,
                   [&] { return checked(::recv(socket_.get(), out.data(), out.size(), MSG_DONTWAIT)); });
  }
  return reading_.run(*ring(), deadline_ns, [&](io_uring_sqe* sqe) {
    io_uring_prep_recv(sqe, socket_.get(), out.data(), out.size(), 0);
  });
}

Result<std::size_t> SocketConnection::read(MutableBytes out, runtime::TimeNs deadline_ns) {
  if (shut_) return Error(Code::kClosed);
  if (out.empty()) return std::size_t{0};
  const int result = receive_some(out.first(std::min(out.size(), kMostAtOnce)), deadline_ns);
  if (shut_) return Error(Code::kClosed);
  if (result < 0) return failed(result);
  return static_cast<std::size_t>(result);
}

int SocketConnection::send_some(iovec* pieces, std::size_t count, runtime::TimeNs deadline_ns) {
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = count;
  if (ring() == nullptr) {
    return attempt(socket_.get(), Direction::kWrite, deadline_ns,
                   [&] { return checked(::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL)); });
  }
  return writing_.run(*ring(), deadline_ns, [&](io_uring_sqe* sqe) {
    if (count == 1) {
      io_uring_prep_send(sqe, socket_.get(), pieces->iov_base, pieces->iov_len, MSG_NOSIGNAL);
    } else {
      io_uring_prep_sendmsg(sqe, socket_.get(), &message, MSG_NOSIGNAL);
    }
  });
}

Result<> SocketConnection::write(std::span<const Bytes> pieces, runtime::TimeNs deadline_ns) {
  while (!pieces.empty()) {
    iovec vectors[kPiecesAtOnce];
    const std::size_t count = std::min(pieces.size(), kPiecesAtOnce);
    for (std::size_t i = 0; i < count; ++i) {
      vectors[i] = {const_cast<std::byte*>(pieces[i].data()), pieces[i].size()};
    }
    pieces = pieces.subspan(count);
    iovec* next = vectors;
    std::size_t left = count;
    skip(next, left, 0);
    while (left > 0) {
      if (shut_) return Error(Code::kClosed);
      const int sent = send_some(next, left, deadline_ns);
      if (shut_) return Error(Code::kClosed);
      if (sent < 0) return failed(sent);
      skip(next, left, static_cast<std::size_t>(sent));
    }
  }
  return {};
}

void SocketConnection::finish_writing() { ::shutdown(socket_.get(), SHUT_WR); }

Connection::Presence SocketConnection::presence() {
  pollfd state{socket_.get(), POLLRDHUP, 0};
  if (shut_) return Presence::kGone;
  if (::poll(&state, 1, 0) <= 0) return Presence::kThere;
  if ((state.revents & (POLLERR | POLLHUP)) != 0) return Presence::kGone;
  return (state.revents & POLLRDHUP) != 0 ? Presence::kEnded : Presence::kThere;
}

// The kernel ends what is in flight: a receive with 0, a send with EPIPE.
void SocketConnection::shut_down() {
  shut_ = true;
  ::shutdown(socket_.get(), SHUT_RDWR);
}

}  // namespace kelda::net
