#include "net/user_network_hosted.h"

#include <memory>
#include <unordered_set>

#include "net/acceptor_hosted.h"
#include "net/frame_link_hosted.h"
#include "net/lwip_stack.h"

namespace kelda::net {
namespace {

constexpr DhcpLease kLease{{0x52, 0x55, 0x0a, 0x00, 0x02, 0x02}, 0x0a000202, 0x0a00020f, 0xffffff00};
constexpr std::size_t kPumpBytes = 16 * 1024;
constexpr runtime::TimeNs kConnectTimeoutNs = 10'000'000'000;
// Connections to the machine that are being opened at once; more clients wait for their turn, so that those who have
// theirs are served through a storm.
constexpr int kOpeningLimit = 16;

// Everything from one side to the other, and then its end.
void pump(Connection& from, Connection& to) {
  const auto memory = std::make_unique_for_overwrite<std::byte[]>(kPumpBytes);
  while (true) {
    auto got = from.read({memory.get(), kPumpBytes});
    if (got && *got == 0) return to.finish_writing();
    if (!got || !to.write(Bytes(memory.get(), *got))) break;
  }
  from.shut_down();
  to.shut_down();
}

// One core's: its fibers take turns.
class Forwarder {
 public:
  Forwarder(lwip::Stack& stack, Listener& listener, std::uint16_t port) : stack_(stack), listener_(listener), port_(port) {}

  // Until end(), or the listener is closed otherwise, and every session has ended.
  void run() {
    while (auto client = listener_.accept()) {
      while (opening_ == kOpeningLimit && !ended_) {
        fewer_opening_.reset();
        fewer_opening_.wait();
      }
      ++opening_;
      sessions_.add();
      auto begun = runtime::Core::current().spawn(
          [this, held = std::move(*client)]() mutable {
            serve(std::move(held));
            sessions_.done();
          },
          {.name = "forward"});
      if (begun) continue;
      --opening_;  // no memory: the client is turned away
      sessions_.done();
    }
    sessions_.wait();
  }

  // The machine has ended; clients that keep their connections open notice it here.
  void end() {
    ended_ = true;
    fewer_opening_.set();
    listener_.close();
    for (Connection* client : clients_) client->shut_down();
  }

 private:
  void serve(std::unique_ptr<Connection> client) {
    clients_.insert(client.get());
    forward(*client);
    clients_.erase(client.get());
  }

  Result<std::unique_ptr<Connection>> open_machine() {
    if (ended_) return Error(Code::kClosed);
    return stack_.connect({kLease.client, port_}, runtime::now_ns() + kConnectTimeoutNs);
  }

  void forward(Connection& client) {
    auto machine = open_machine();
    --opening_;
    fewer_opening_.set();
    if (!machine) return;
    runtime::Completion back;
    back.add();
    auto begun = runtime::Core::current().spawn(
        [&] {
          pump(**machine, client);
          back.done();
        },
        {.name = "forward back"});
    if (!begun) return;
    pump(client, **machine);
    back.wait();
  }

  lwip::Stack& stack_;
  Listener& listener_;
  const std::uint16_t port_;
  runtime::Completion sessions_;
  std::unordered_set<Connection*> clients_;
  int opening_ = 0;
  runtime::Event fewer_opening_;
  bool ended_ = false;
};

}  // namespace

Result<> serve_user_network(UserNetworkOptions options) {
  FileDescriptor socket(options.frame_socket);
  auto listener = TRY(listen_hosted(TRY(parse_endpoint(options.listen)), 1, {}));
  auto link = TRY(FrameLink::start(std::move(socket), kLease));
  auto ended = link->ended();
  StackOptions stack_options;
  stack_options.address = "10.0.2.2/24";
  stack_options.memory_limit_bytes = 64 << 20;
  auto stack = std::make_unique<lwip::Stack>(std::move(link), stack_options);
  TRY(stack->bring_up(stack_options));

  Forwarder forwarder(*stack, *listener, options.port);
  runtime::Completion done;
  done.add();
  TRY(runtime::Core::current().spawn([&] {
    forwarder.run();
    done.done();
  }));
  ended->wait();
  forwarder.end();
  // What is left of the machine's connections is reset with its device.
  stack.reset();
  done.wait();
  return {};
}

}  // namespace kelda::net
