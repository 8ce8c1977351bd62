// Listening and connecting: how pcbs become Connections.
#include <algorithm>
#include <utility>

#include "lwip/priv/tcp_priv.h"
#include "lwip/tcp.h"
#include "net/dealer.h"
#include "net/lwip_channel.h"
#include "net/lwip_stack.h"

namespace kelda::net::lwip {
namespace {

class LwipConnection : public Connection {
 public:
  LwipConnection(Channel& channel, Dealer::Seat seat) : channel_(channel), seat_(std::move(seat)) {}
  ~LwipConnection() override { channel_.release(); }

  Result<std::size_t> read(MutableBytes out, runtime::TimeNs deadline_ns) override {
    return channel_.read(out, deadline_ns);
  }
  Result<> write(std::span<const Bytes> pieces, runtime::TimeNs deadline_ns) override {
    return channel_.write(pieces, deadline_ns);
  }
  void finish_writing() override { channel_.finish_writing(); }
  void shut_down() override { channel_.shut_down(); }
  std::string peer() const override { return channel_.peer().to_string(); }
  Presence presence() override { return channel_.presence(); }

 private:
  Channel& channel_;  // deletes itself after release()
  Dealer::Seat seat_;
};

// The limit on connections is enforced where lwIP asks, at each SYN; a slot is given back when the pcb is freed, which
// may be long after the Connection, and even the Stack, is gone. So the count lives where the pcbs do. Stack's core only.
constinit std::uint32_t taken_slots = 0;
// Of these, connections whose peer has not confirmed yet that it exists. lwIP looks connections up one by one, so a
// flood of invented ones would slow down the rest long before memory runs out.
constinit std::uint32_t half_open = 0;
constexpr std::uint32_t kHalfOpenLimit = 2048;
void* const kHalfOpen = &half_open;  // the slot's data until then

u8_t slot_id() {
  static const u8_t id = tcp_ext_arg_alloc_id();
  return id;
}

const tcp_ext_arg_callbacks kSlotOfConnection = {
    .destroy =
        [](u8_t, void* data) {
          --taken_slots;
          if (data == kHalfOpen) --half_open;
        },
    .passive_open = nullptr};

// Connections that this side closed first wait for stray segments; when slots are short they have waited enough.
void end_time_waits() {
  while (tcp_tw_pcbs != nullptr) tcp_abort(tcp_tw_pcbs);
}

err_t take_slot(u8_t id, tcp_pcb_listen* listening, tcp_pcb* pcb) {
  const auto* stack = static_cast<const Stack*>(tcp_ext_arg_get(reinterpret_cast<tcp_pcb*>(listening), id));
  if (taken_slots >= stack->connection_limit()) end_time_waits();
  if (taken_slots >= stack->connection_limit() || half_open >= kHalfOpenLimit) return ERR_MEM;
  ++taken_slots;
  ++half_open;
  tcp_ext_arg_set(pcb, id, kHalfOpen);
  // Before the SYN is answered, so that no more than this is ever promised (window_pool.h).
  pcb->rcv_wnd = pcb->rcv_ann_wnd = WindowPool::kFirstBytes;
  tcp_ext_arg_set_callbacks(pcb, id, &kSlotOfConnection);
  return ERR_OK;
}

const tcp_ext_arg_callbacks kSlotsOfListener = {.destroy = nullptr, .passive_open = take_slot};

class LwipListener : public Listener {
 public:
  LwipListener(Stack& stack, std::uint32_t core_count) : stack_(stack), dealer_(core_count) {}
  ~LwipListener() override { close(); }

  // On the stack's core.
  Result<> open(Endpoint endpoint) {
    tcp_pcb* pcb = tcp_new_ip_type(IPADDR_TYPE_V4);
    if (pcb == nullptr) return Error(Code::kOutOfMemory, "no memory to listen at " + endpoint.to_string());
    const ip_addr_t address = IPADDR4_INIT(lwip_htonl(endpoint.address));
    if (tcp_bind(pcb, &address, endpoint.port) != ERR_OK) {
      tcp_abort(pcb);
      return Error(Code::kBusy, endpoint.to_string() + " is in use already: choose another port");
    }
    tcp_ext_arg_set(pcb, slot_id(), &stack_);
    tcp_ext_arg_set_callbacks(pcb, slot_id(), &kSlotsOfListener);
    err_t error = ERR_OK;
    pcb_ = tcp_listen_with_backlog_and_err(pcb, TCP_DEFAULT_LISTEN_BACKLOG, &error);
    if (pcb_ == nullptr) {
      tcp_abort(pcb);
      return Error(error == ERR_USE ? Code::kBusy : Code::kOutOfMemory, "cannot listen at " + endpoint.to_string());
    }
    tcp_arg(pcb_, this);
    tcp_accept(pcb_, on_accept);
    local_ = {endpoint.address, pcb_->local_port};
    return {};
  }

  Result<std::unique_ptr<Connection>> accept() override { return dealer_.take(); }

  void close() override {
    stack_.call([this] {
      if (pcb_ == nullptr) return;
      tcp_arg(pcb_, nullptr);
      tcp_close(std::exchange(pcb_, nullptr));
    });
    dealer_.close();
  }

  std::string local() const override { return local_.to_string(); }

 private:
  static err_t on_accept(void* self, tcp_pcb* pcb, err_t error) {
    auto* listener = static_cast<LwipListener*>(self);
    if (pcb == nullptr || error != ERR_OK) return ERR_VAL;
    --half_open;
    tcp_ext_arg_set(pcb, slot_id(), nullptr);
    if (listener == nullptr) return ERR_CLSD;  // lwIP then resets the connection
    auto* channel = new Channel(listener->stack_.core(), listener->stack_.windows(), listener->stack_.peers(), pcb, true);
    auto seat = listener->dealer_.seat();
    const std::uint32_t core = seat.core();
    listener->dealer_.deal(core, std::make_unique<LwipConnection>(*channel, std::move(seat)));
    return ERR_OK;
  }

  Stack& stack_;
  Dealer dealer_;
  tcp_pcb* pcb_ = nullptr;
  Endpoint local_;
};

err_t on_connected(void* channel, tcp_pcb*, err_t) {
  static_cast<Channel*>(channel)->on_connected();
  return ERR_OK;
}

// lwIP looks for a free port among 16 thousand with a walk over all connections for each; here the next one is nearly
// always free. Connections that wait for stray segments are given up when there are many: each makes every walk longer,
// and the far end, which closed last, is not in that state.
err_t bind_next_port(tcp_pcb* pcb) {
  constexpr int kTimeWaitLimit = 1000, kTries = 1000;
  constexpr std::uint16_t kFirstPort = 1024;
  static std::uint16_t last = static_cast<std::uint16_t>(runtime::random_u64());
  int waiting = 0;
  for (const tcp_pcb* other = tcp_tw_pcbs; other != nullptr; other = other->next) ++waiting;
  if (waiting > kTimeWaitLimit) end_time_waits();
  err_t error = ERR_USE;
  for (int i = 0; i < kTries && error == ERR_USE; ++i) {
    last = std::max<std::uint16_t>(last + 1, kFirstPort);
    error = tcp_bind(pcb, IP4_ADDR_ANY, last);
  }
  return error;
}

// On the stack's core.
Result<Channel*> begin_connect(Stack& stack, Endpoint endpoint) {
  tcp_pcb* pcb = tcp_new_ip_type(IPADDR_TYPE_V4);
  if (pcb == nullptr) return Error(Code::kOutOfMemory, "no memory for another connection");
  if (bind_next_port(pcb) != ERR_OK) {
    tcp_abort(pcb);
    return Error(Code::kBusy, "no port is free for another connection to " + endpoint.to_string());
  }
  const ip_addr_t address = IPADDR4_INIT(lwip_htonl(endpoint.address));
  if (tcp_connect(pcb, &address, endpoint.port, on_connected) != ERR_OK) {
    tcp_abort(pcb);
    return Error(Code::kClosed, "no route to " + endpoint.to_string());
  }
  return new Channel(stack.core(), stack.windows(), stack.peers(), pcb, false);
}

}  // namespace

Result<std::unique_ptr<Listener>> Stack::listen(Endpoint endpoint, std::uint32_t core_count) {
  auto listener = std::make_unique<LwipListener>(*this, core_count);
  Result<> opened;
  call([&] { opened = listener->open(endpoint); });
  if (!opened) return std::move(opened).error();
  return listener;
}

Result<std::unique_ptr<Connection>> Stack::connect(Endpoint endpoint, runtime::TimeNs deadline_ns) {
  Result<Channel*> channel = nullptr;
  call([&] { channel = begin_connect(*this, endpoint); });
  if (!channel) return std::move(channel).error();
  auto connection = std::make_unique<LwipConnection>(**channel, Dealer::Seat());
  TRY((*channel)->wait_connected(deadline_ns));
  return connection;
}

}  // namespace kelda::net::lwip
