// The TCP/IP stack: lwIP on one core, driven by that core's loop. There is one in a process (lwIP's state is global).
//
// Contract: made and destroyed on the core it runs on; listen(), connect() and everything they return work on any core.
// It knows no platform: with a Nic it is the bare network, without one it serves 127.0.0.1 inside the process, which is
// how it is tested hosted as well.
#pragma once

#include <memory>

#include "lwip/netif.h"
#include "net/address.h"
#include "net/lwip_loopback.h"
#include "net/net.h"
#include "net/nic.h"
#include "net/window_pool.h"
#include "runtime/core.h"
#include "runtime/sync.h"

namespace kelda::net::lwip {

class Stack : private runtime::Poller, private Nic::Sink {
 public:
  // `nic` may be null.
  Stack(std::unique_ptr<Nic> nic, const StackOptions& options, const Loopback::Faults& faults = {});
  ~Stack() override;
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  // Gives the device its address; waits for DHCP where that is asked for.
  Result<StackInfo> bring_up(const StackOptions& options);

  Result<std::unique_ptr<Listener>> listen(Endpoint endpoint, std::uint32_t core_count);
  Result<std::unique_ptr<Connection>> connect(Endpoint endpoint, runtime::TimeNs deadline_ns);

  // Runs `function` on the stack's core and waits for it.
  template <class F>
  void call(F function);

  runtime::Core& core() { return core_; }
  WindowPool& windows() { return windows_; }
  std::uint32_t connection_limit() const { return connection_limit_; }
  const PeerTimeouts& peers() const { return peers_; }

 private:
  // Poller
  std::size_t poll() override;
  bool prepare_sleep() override;
  void after_sleep() override;
  runtime::TimeNs next_deadline_ns() override;

  // Nic::Sink
  void frame(Bytes bytes, bool checksum_is_good) override;

  static std::int8_t init_netif(netif* device);
  static std::int8_t send_frame(netif* device, pbuf* frame);
  static void on_status(netif* device);
  Result<> set_static_address(const StackOptions& options);
  Result<> wait_for_lease();

  runtime::Core& core_;
  const std::unique_ptr<Nic> nic_;
  Nic::Info nic_info_;
  netif device_{};
  Loopback loopback_;
  std::uint8_t checksum_flags_ = 0;
  bool device_was_full_ = false;
  runtime::Event has_address_;
  const std::uint32_t connection_limit_;
  const PeerTimeouts peers_;
  WindowPool windows_;
};

template <class F>
void Stack::call(F function) {
  if (runtime::Core::current_or_null() == &core_) return function();
  struct Call : runtime::Message {
    explicit Call(F& f) : function(f) {}
    F& function;
    runtime::Completion done;
  } call(function);
  call.run = [](runtime::Message& message, runtime::Core&) {
    auto& self = static_cast<Call&>(message);
    self.function();
    self.done.done();
  };
  call.done.add();
  core_.post(call);
  call.done.wait();
}

}  // namespace kelda::net::lwip
