// One listening socket, one fiber on the core that listens: it keeps a multishot accept in the ring and deals what
// comes out. The kernel's own spreading (SO_REUSEPORT) hashes addresses, which is uneven for a few dozen connections.
#include "net/acceptor_hosted.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <vector>

#include "net/dealer.h"
#include "net/readiness_hosted.h"
#include "net/socket_hosted.h"
#include "runtime/turn.h"

namespace kelda::net {
namespace {

constexpr int kBacklog = 16 * 1024;  // the system caps it (net.core.somaxconn, 4096 by default)
constexpr runtime::TimeNs kShortageRetryNs = 100'000'000;
// A killed process's ring is taken down in the background, and with it the accept that holds its port: a restart right
// after has to wait for that a little.
constexpr runtime::TimeNs kPortPatienceNs = 500'000'000;
constexpr runtime::TimeNs kPortRetryNs = 20'000'000;
// Without io_uring the accepting fiber looks this often whether it should end.
constexpr runtime::TimeNs kCloseLookNs = 50'000'000;

bool is_shortage(int error) { return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM; }

// Shared by the Listener and the fiber, so that either may go first.
class Acceptor : public runtime::UringOp, public std::enable_shared_from_this<Acceptor> {
 public:
  Acceptor(FileDescriptor socket, std::uint32_t core_count) : dealer(core_count), socket_(std::move(socket)) {
    complete = on_complete;
  }

  Result<> start() {
    return runtime::Core::current().spawn([self = shared_from_this()] { self->run(); }, {.name = "accept"});
  }

  // From any core. Returns when the port is free again.
  void close() {
    dealer.close();
    closing_.store(true, std::memory_order_release);  // before the unpark: whoever wakes must see it
    if (runtime::Fiber* fiber = fiber_.load(std::memory_order_acquire)) runtime::Core::unpark(*fiber);
    finished_.wait();
  }

  Dealer dealer;

 private:
  void run() {
    runtime::Core& core = runtime::Core::current();
    if (runtime::Ring::of(core) == nullptr) return run_polled();
    fiber_.store(&core.current_fiber(), std::memory_order_release);
    while (!closing_.load(std::memory_order_acquire)) {
      if (!armed_) arm();
      if (accepted_.empty() && error_ == 0) core.park();
      deal_accepted();
      if (error_ != 0) wait_after_error();
    }
    while (armed_) disarm();
    accepted_.clear();
    fiber_.store(nullptr, std::memory_order_release);
    finish();
  }

  // Where io_uring is forbidden.
  void run_polled() {
    ::fcntl(socket_.get(), F_SETFL, O_NONBLOCK);
    while (!closing_.load(std::memory_order_acquire)) {
      const int result = ::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (result >= 0) {
        accepted_.emplace_back(result);
        deal_accepted();
      } else if (errno == EAGAIN) {
        Readiness::instance().wait(socket_.get(), Direction::kRead, runtime::now_ns() + kCloseLookNs);
      } else {
        error_ = errno;
        wait_after_error();
      }
    }
    finish();
  }

  void finish() {
    socket_ = FileDescriptor();
    finished_.set();
  }

  void arm() {
    armed_ = true;
    ring().queue(*this, [this](io_uring_sqe* sqe) {
      if (multishot_) {
        io_uring_prep_multishot_accept(sqe, socket_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      } else {
        io_uring_prep_accept(sqe, socket_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      }
    });
  }

  void disarm() {
    ring().queue_unheeded([this](io_uring_sqe* sqe) { io_uring_prep_cancel(sqe, static_cast<UringOp*>(this), 0); });
    while (armed_) runtime::Core::current().park();
  }

  static void on_complete(UringOp& op, int result, std::uint32_t flags) {
    auto& self = static_cast<Acceptor&>(op);
    if ((flags & IORING_CQE_F_MORE) == 0) self.armed_ = false;
    if (result >= 0) {
      self.accepted_.emplace_back(result);
    } else if (result == -EINVAL && self.multishot_) {
      self.multishot_ = false;  // a kernel before 5.19: one by one
    } else if (result != -ECANCELED) {
      self.error_ = -result;
    }
    if (runtime::Fiber* fiber = self.fiber_.load(std::memory_order_relaxed)) runtime::Core::unpark(*fiber);
  }

  void deal_accepted() {
    std::vector<FileDescriptor> sockets;
    sockets.swap(accepted_);
    runtime::Turn turn;
    turn.begin();
    for (FileDescriptor& socket : sockets) {
      sockaddr_in peer{};
      socklen_t size = sizeof peer;
      // A client that has gone already: its connection reports that to whoever reads it.
      if (::getpeername(socket.get(), reinterpret_cast<sockaddr*>(&peer), &size) != 0) peer = {};
      Dealer::Seat seat = dealer.seat();
      const std::uint32_t core = seat.core();
      dealer.deal(core, std::make_unique<SocketConnection>(std::move(socket), to_endpoint(peer), std::move(seat)));
      turn.step();
    }
  }

  // A shortage passes when other connections end; anything else concerns one connection that failed before it was taken.
  void wait_after_error() {
    const int error = std::exchange(error_, 0);
    if (!is_shortage(error)) return;
    if (!warned_) {
      warned_ = true;
      std::fprintf(stderr, "warning: %s; new connections wait until others end (see ulimit -n)\n",
                   system_error(Code::kIo, "cannot accept a connection", error).message().c_str());
    }
    runtime::Core::current().park_until(runtime::now_ns() + kShortageRetryNs);
  }

  runtime::Ring& ring() {
    runtime::Ring* ring = runtime::Ring::of(runtime::Core::current());
    KELDA_ASSERT(ring != nullptr);
    return *ring;
  }

  FileDescriptor socket_;
  std::atomic<bool> closing_{false};
  std::atomic<runtime::Fiber*> fiber_{nullptr};
  runtime::Event finished_;
  // The accepting core's own.
  std::vector<FileDescriptor> accepted_;
  int error_ = 0;
  bool armed_ = false;
  bool multishot_ = true;
  bool warned_ = false;
};

class SocketListener : public Listener {
 public:
  SocketListener(std::shared_ptr<Acceptor> acceptor, Endpoint local) : acceptor_(std::move(acceptor)), local_(local) {}
  ~SocketListener() override { close(); }
  Result<std::unique_ptr<Connection>> accept() override { return acceptor_->dealer.take(); }
  void close() override { acceptor_->close(); }
  std::string local() const override { return local_.to_string(); }

 private:
  const std::shared_ptr<Acceptor> acceptor_;
  const Endpoint local_;
};

Error listen_error(Endpoint endpoint, int error_number) {
  const std::string where = endpoint.to_string();
  switch (error_number) {
    case EADDRINUSE: return Error(Code::kBusy, where + " is in use by another program: end it, or choose another port");
    case EACCES: return Error(Code::kInvalidArgument, where + " needs privileges: choose a port from 1024 on");
    case EADDRNOTAVAIL: return Error(Code::kInvalidArgument, where + " is not an address of this machine");
    default: return system_error(Code::kIo, "cannot listen at " + where, error_number);
  }
}

// Binds and listens; 0 or an errno.
int open_port(int socket, sockaddr_in& address) {
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  const bool good = ::bind(socket, generic, size) == 0 && ::listen(socket, kBacklog) == 0 &&
                    ::getsockname(socket, generic, &size) == 0;
  return good ? 0 : errno;
}

}  // namespace

Result<std::unique_ptr<Listener>> listen_hosted(Endpoint endpoint, std::uint32_t core_count, const PeerTimeouts& peers) {
  FileDescriptor socket = TRY(make_tcp_socket(peers));
  const int one = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_in address = to_sockaddr(endpoint);
  int error = open_port(socket.get(), address);
  const runtime::TimeNs give_up_ns = runtime::now_ns() + kPortPatienceNs;
  while (error == EADDRINUSE && runtime::now_ns() < give_up_ns) {
    runtime::Core::current().sleep_until(runtime::now_ns() + kPortRetryNs);
    error = open_port(socket.get(), address);
  }
  if (error != 0) return listen_error(endpoint, error);
  auto acceptor = std::make_shared<Acceptor>(std::move(socket), core_count);
  TRY(acceptor->start());
  return std::make_unique<SocketListener>(std::move(acceptor), to_endpoint(address));
}

}  // namespace kelda::net
