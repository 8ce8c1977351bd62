// A TCP connection between the stack's core, where lwIP runs, and the core whose fibers read and write it.
//
//   fiber, any core           latch            stack's core
//   read()   <-------- received pbufs <-------- lwIP's receive callback
//            --------> consumed bytes --------> tcp_recved (opens the window)
//   write()  --------> unsent ring    --------> tcp_write, tcp_output
//
// On the stack's own core read() and write() do the right-hand side themselves and skip the ring. Elsewhere they post
// the channel to that core, once until it has run, however often they have something to say.
//
// Invariants
//  C1. pcb_ is touched on the stack's core only. It is null once lwIP has freed it or it has been closed.
//  C2. A channel is deleted on the stack's core, when its Connection is gone, it is not posted and pcb_ is null.
//  C3. When memory is scarce (lwip_port.h), a writer waits at the floor. Received data is bounded by the window, which
//      comes from the stack's pool; lwIP's is at most ours, window_bytes_, minus what is held.
#pragma once

#include <cstdint>
#include <string>

#include "net/address.h"
#include "net/byte_ring.h"
#include "net/net.h"
#include "net/window_pool.h"
#include "runtime/core.h"
#include "runtime/sync.h"

struct pbuf;
struct tcp_pcb;

namespace kelda::net::lwip {

class Channel : public runtime::Message {
 public:
  // On the stack's core. Takes over the pcb's callbacks. `connected` is false for an active open under way;
  // else the pcb's window is WindowPool::kFirstBytes already.
  Channel(runtime::Core& stack_core, WindowPool& windows, const PeerTimeouts& peers, tcp_pcb* pcb, bool connected);
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // The Connection's side, on its core.
  Result<std::size_t> read(MutableBytes out, runtime::TimeNs deadline_ns);
  Result<> write(std::span<const Bytes> pieces, runtime::TimeNs deadline_ns);
  Result<> wait_connected(runtime::TimeNs deadline_ns);
  void finish_writing();
  void shut_down();
  Connection::Presence presence();
  // The Connection goes; from any core. The channel must not be touched afterwards.
  void release();
  Endpoint peer() const { return peer_; }

  // From lwIP's callback of an active open.
  void on_connected();

 private:
  ~Channel();

  bool on_stack_core() const { return runtime::Core::current_or_null() == &stack_core_; }
  void post_locked();
  static void run_message(runtime::Message& message, runtime::Core& core);

  // Reading side.
  std::size_t copy_out(MutableBytes out);
  void consumed(std::size_t bytes);

  // Writing side: some of `data`, or 0 when the caller has to wait for room.
  std::size_t write_some(Bytes data, bool more);

  // On the stack's core.
  void service();
  void push_ring();
  std::size_t push(Bytes data, bool more);
  std::size_t send_room() const;
  void open_window(std::size_t bytes);
  void close_pcb();
  void take_leave();
  void delete_if_done();
  bool make_progress();
  bool is_stuck();

  // lwIP's callbacks.
  static std::int8_t on_receive(void* self, tcp_pcb* pcb, pbuf* data, std::int8_t error);
  static std::int8_t on_sent(void* self, tcp_pcb* pcb, std::uint16_t bytes);
  static std::int8_t on_poll(void* self, tcp_pcb* pcb);
  static void on_error(void* self, std::int8_t error);
  void receive(pbuf* data);

  struct PbufQueue {  // linked through pbuf::next; tot_len is not kept
    pbuf* head = nullptr;
    pbuf* tail = nullptr;
    void append(pbuf* chain);
  };

  runtime::Core& stack_core_;
  tcp_pcb* pcb_;  // C1
  Endpoint peer_;
  WindowPool& windows_;              // stack's core, like the next three
  std::size_t window_bytes_ = WindowPool::kFirstBytes;
  std::size_t read_since_growth_bytes_ = 0;
  const std::uint32_t send_timeout_polls_;  // 0: none
  std::uint32_t last_acknowledged_ = 0;     // at the last poll
  std::uint32_t stuck_polls_ = 0;           // since the peer last took something, while there was something to take
  std::uint32_t linger_polls_ = 0;   // since the Connection went with data left to send

  PbufQueue reading_;              // the reader's own: taken from received_ whole
  std::size_t reading_offset_ = 0;

  runtime::SpinLatch latch_;  // guards everything below
  PbufQueue received_;
  std::size_t held_bytes_ = 0;      // received and not read yet
  std::size_t consumed_bytes_ = 0;  // read, but the window not opened yet
  ByteRing unsent_;
  bool posted_ = false;
  bool connected_;
  bool end_of_stream_ = false;
  bool reset_ = false;              // by the peer, by a time-out, by the stack
  bool finishing_ = false;          // our side writes no more
  bool finished_ = false;           // and lwIP has been told so
  bool shut_ = false;               // by our side
  bool released_ = false;
  runtime::WaitQueue reader_, writer_;
};

}  // namespace kelda::net::lwip
