#include "net/lwip_channel.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "common/assert.h"
#include "lwip/tcp.h"

namespace kelda::net::lwip {
namespace {

using runtime::TimeNs;

// Bytes read on another core before the window is opened by a message of its own; a reply opens it for free.
constexpr std::size_t kWindowBatchBytes = 4 * 1024;
// Else a window that was used up and read would not be announced again, and the peer would wait for ever: what opens it
// may be all but one byte short of a batch.
static_assert(WindowPool::kFirstBytes - (kWindowBatchBytes - 1) >= TCP_WND_UPDATE_THRESHOLD);

// lwIP polls a connection every kPollTicks half seconds.
constexpr u8_t kPollTicks = 1;
constexpr std::uint32_t kPollsPerSecond = 2;
// How long data of a closed connection is offered to a peer that does not take it.
constexpr std::uintptr_t kLingerPolls = 60;
constexpr std::uintptr_t kLingerPollsWhenScarce = 4;

bool lingered(std::uintptr_t polls) {
  return polls > (memory_is_scarce() ? kLingerPollsWhenScarce : kLingerPolls);
}

// A pcb without a Connection: its argument counts polls while it has something to send.
err_t poll_orphan(void* polls, tcp_pcb* pcb) {
  const auto count = reinterpret_cast<std::uintptr_t>(polls) + 1;
  if (pcb->unsent == nullptr && pcb->unacked == nullptr) {
    tcp_poll(pcb, nullptr, 0);
  } else if (lingered(count)) {
    tcp_abort(pcb);
    return ERR_ABRT;
  }
  tcp_arg(pcb, reinterpret_cast<void*>(count));
  return ERR_OK;
}

}  // namespace

void Channel::PbufQueue::append(pbuf* chain) {
  (tail != nullptr ? tail->next : head) = chain;
  while (chain->next != nullptr) chain = chain->next;
  tail = chain;
}

Channel::Channel(runtime::Core& stack_core, WindowPool& windows, const PeerTimeouts& peers, tcp_pcb* pcb, bool connected)
    : stack_core_(stack_core),
      pcb_(pcb),
      peer_{lwip_ntohl(ip_addr_get_ip4_u32(&pcb->remote_ip)), pcb->remote_port},
      windows_(windows),
      send_timeout_polls_(peers.send_timeout_s * kPollsPerSecond),
      connected_(connected) {
  windows_.promise(window_bytes_);
  run = run_message;
  tcp_arg(pcb, this);
  tcp_recv(pcb, on_receive);
  tcp_sent(pcb, on_sent);
  tcp_err(pcb, on_error);
  tcp_poll(pcb, on_poll, kPollTicks);
  tcp_nagle_disable(pcb);
  ip_set_option(pcb, SOF_KEEPALIVE);
  pcb->keep_idle = peers.keepalive_s * 1000;
  pcb->keep_intvl = std::max(peers.keepalive_s / 3, 1u) * 1000;
  pcb->keep_cnt = 3;
}

Channel::~Channel() {
  windows_.give_back(window_bytes_);
  for (pbuf* head : {received_.head, reading_.head}) {
    while (head != nullptr) {
      pbuf* following = head->next;
      head->next = nullptr;
      pbuf_free(head);
      head = following;
    }
  }
}

void Channel::post_locked() {
  if (posted_) return;
  posted_ = true;
  stack_core_.post(*this);
}

void Channel::run_message(runtime::Message& message, runtime::Core&) {
  auto& self = static_cast<Channel&>(message);
  {
    std::scoped_lock lock(self.latch_);
    self.posted_ = false;
  }
  self.service();
}

// ---- the Connection's side

Result<std::size_t> Channel::read(MutableBytes out, TimeNs deadline_ns) {
  if (out.empty()) return std::size_t{0};
  {
    std::scoped_lock lock(latch_);
    while (true) {
      if (shut_) return Error(Code::kClosed);
      if (reading_.head != nullptr) break;
      if (received_.head != nullptr) {
        reading_ = std::exchange(received_, {});
        break;
      }
      if (end_of_stream_) return std::size_t{0};
      if (reset_) return Error(Code::kClosed, "the peer reset the connection");
      if (!reader_.wait_until(latch_, deadline_ns)) return Error(Code::kTimeout);
    }
  }
  const std::size_t taken = copy_out(out);
  consumed(taken);
  return taken;
}

// Pbufs that are used up are freed here, on the reader's core: nobody else refers to them (lwip_port.h).
std::size_t Channel::copy_out(MutableBytes out) {
  std::size_t taken = 0;
  while (taken < out.size() && reading_.head != nullptr) {
    pbuf* head = reading_.head;
    const std::size_t count = std::min(out.size() - taken, head->len - reading_offset_);
    std::memcpy(out.data() + taken, static_cast<const std::byte*>(head->payload) + reading_offset_, count);
    taken += count;
    reading_offset_ += count;
    if (reading_offset_ < head->len) break;
    reading_.head = head->next;
    reading_offset_ = 0;
    head->next = nullptr;
    pbuf_free(head);
  }
  if (reading_.head == nullptr) reading_.tail = nullptr;
  return taken;
}

void Channel::consumed(std::size_t bytes) {
  std::scoped_lock lock(latch_);
  held_bytes_ -= bytes;
  if (on_stack_core()) {
    open_window(bytes);
    return;
  }
  consumed_bytes_ += bytes;
  if (consumed_bytes_ >= kWindowBatchBytes) post_locked();
}

Result<> Channel::write(std::span<const Bytes> pieces, TimeNs deadline_ns) {
  std::scoped_lock lock(latch_);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    Bytes data = pieces[i];
    while (!data.empty()) {
      if (shut_ || reset_ || finishing_) return Error(Code::kClosed);
      const std::size_t count = write_some(data, i + 1 < pieces.size());
      data = data.subspan(count);
      if (count > 0) continue;
      if (on_stack_core() && pcb_ != nullptr) tcp_output(pcb_);
      if (!writer_.wait_until(latch_, deadline_ns)) return Error(Code::kTimeout);
    }
  }
  if (on_stack_core() && pcb_ != nullptr) tcp_output(pcb_);
  return {};
}

std::size_t Channel::write_some(Bytes data, bool more) {
  if (on_stack_core()) return push(data, more);
  const std::size_t count = unsent_.append(data);
  post_locked();
  return count;
}

Result<> Channel::wait_connected(TimeNs deadline_ns) {
  std::scoped_lock lock(latch_);
  while (!connected_) {
    if (reset_) return Error(Code::kClosed, "nobody answers at " + peer_.to_string());
    if (!writer_.wait_until(latch_, deadline_ns)) return Error(Code::kTimeout);
  }
  return {};
}

void Channel::finish_writing() {
  std::unique_lock lock(latch_);
  if (std::exchange(finishing_, true)) return;
  if (!on_stack_core()) return post_locked();
  lock.unlock();
  service();
}

void Channel::shut_down() {
  std::unique_lock lock(latch_);
  if (shut_) return;
  shut_ = true;
  reader_.wake_all();
  writer_.wake_all();
  if (!on_stack_core()) return post_locked();
  lock.unlock();
  service();
}

Connection::Presence Channel::presence() {
  const std::scoped_lock lock(latch_);
  if (reset_ || shut_) return Connection::Presence::kGone;
  return end_of_stream_ ? Connection::Presence::kEnded : Connection::Presence::kThere;
}

void Channel::release() {
  std::unique_lock lock(latch_);
  released_ = true;
  if (!on_stack_core()) return post_locked();
  lock.unlock();
  service();
}

// ---- the stack's core

void Channel::service() {
  {
    std::scoped_lock lock(latch_);
    if (pcb_ != nullptr) open_window(std::exchange(consumed_bytes_, 0));
    push_ring();
  }
  if (pcb_ != nullptr) tcp_output(pcb_);
  take_leave();
  delete_if_done();
}

// Once everything is sent: ends our direction, or, when the other one has ended too or nobody cares for it, all. lwIP
// forgets a connection that both sides have ended without a word, so the pcb must not be kept then.
void Channel::take_leave() {
  bool close, finish;
  {
    std::scoped_lock lock(latch_);
    if (pcb_ == nullptr || !unsent_.empty()) return;
    close = shut_ || released_ || (finishing_ && end_of_stream_);
    finish = finishing_ && !finished_;
  }
  if (close) {
    close_pcb();
  } else if (finish) {
    finished_ = tcp_shutdown(pcb_, 0, 1) == ERR_OK;  // else again at the next poll
  }
}

// Under the latch. Moves what other cores queued into lwIP, as far as it takes it.
void Channel::push_ring() {
  if (unsent_.empty()) return;
  if (pcb_ == nullptr) {
    unsent_.clear();
  } else {
    while (!unsent_.empty()) {
      const Bytes front = unsent_.front();
      const std::size_t count = push(front, front.size() < unsent_.size());
      if (count == 0) break;
      unsent_.drop(count);
    }
  }
  writer_.wake_one();
}

// Copies into lwIP's send queue; 0 when it is full, or memory is short: then on_sent() or on_poll() try again.
std::size_t Channel::push(Bytes data, bool more) {
  if (pcb_ == nullptr) return 0;
  const std::size_t count = std::min(data.size(), send_room());
  if (count == 0) return 0;
  const u8_t flags = TCP_WRITE_FLAG_COPY | (more || count < data.size() ? TCP_WRITE_FLAG_MORE : 0);
  return tcp_write(pcb_, data.data(), static_cast<u16_t>(count), flags) == ERR_OK ? count : 0;
}

std::size_t Channel::send_room() const {
  std::size_t room = std::min<std::size_t>(pcb_->snd_buf, 0xffff);
  if (memory_is_scarce()) {
    const std::size_t outstanding = TCP_SND_BUF - pcb_->snd_buf;
    room = outstanding < kConnectionFloorBytes ? std::min(room, kConnectionFloorBytes - outstanding) : 0;
  }
  return room;
}

// `bytes` were read: the window opens by as much, or by more while it grows, or by less while it has to shrink.
void Channel::open_window(std::size_t bytes) {
  if (pcb_ == nullptr || bytes == 0) return;
  read_since_growth_bytes_ += bytes;
  if (windows_.exhausted() && window_bytes_ > WindowPool::kFirstBytes) {
    const std::size_t step = std::min(bytes, window_bytes_ - WindowPool::kFirstBytes);
    windows_.give_back(step);
    window_bytes_ -= step;
    bytes -= step;
  } else if (read_since_growth_bytes_ >= window_bytes_) {
    read_since_growth_bytes_ = 0;
    const std::size_t step = windows_.grow(window_bytes_);
    window_bytes_ += step;
    bytes += step;
  }
  while (bytes > 0) {
    const std::size_t step = std::min<std::size_t>(bytes, 0xffff);
    tcp_recved(pcb_, static_cast<u16_t>(step));
    bytes -= step;
  }
}

// lwIP takes a window that is not fully open for unread data and answers a close with a reset, which would overtake what
// was written (N3).
void Channel::close_pcb() {
  tcp_pcb* pcb = std::exchange(pcb_, nullptr);
  tcp_arg(pcb, nullptr);
  tcp_recv(pcb, nullptr);
  tcp_sent(pcb, nullptr);
  tcp_err(pcb, nullptr);
  tcp_poll(pcb, poll_orphan, kPollTicks);
  pcb->rcv_wnd = TCP_WND_MAX(pcb);
  KELDA_ASSERT(tcp_close(pcb) == ERR_OK);
}

void Channel::delete_if_done() {
  {
    std::scoped_lock lock(latch_);
    if (!released_ || posted_ || pcb_ != nullptr) return;
  }
  delete this;
}

void Channel::on_connected() {
  // Nothing has been received yet, and the first acknowledgement is still to be sent.
  pcb_->rcv_wnd = pcb_->rcv_ann_wnd = WindowPool::kFirstBytes;
  std::scoped_lock lock(latch_);
  connected_ = true;
  writer_.wake_all();
}

// ---- lwIP's callbacks

err_t Channel::on_receive(void* self, tcp_pcb*, pbuf* data, err_t) {
  auto& channel = *static_cast<Channel*>(self);
  channel.receive(data);
  if (data == nullptr) channel.take_leave();
  return ERR_OK;
}

void Channel::receive(pbuf* data) {
  std::scoped_lock lock(latch_);
  if (data == nullptr) {
    end_of_stream_ = true;
  } else if (shut_ || released_) {
    open_window(data->tot_len);
    pbuf_free(data);
    return;
  } else {
    held_bytes_ += data->tot_len;
    received_.append(data);
  }
  reader_.wake_one();
}

err_t Channel::on_sent(void* self, tcp_pcb*, u16_t) {
  static_cast<Channel*>(self)->make_progress();
  return ERR_OK;
}

// A peer that answers probes of its closed window stays for ever, as far as lwIP is concerned.
bool Channel::is_stuck() {
  const bool waits = pcb_->unsent != nullptr || pcb_->unacked != nullptr;
  stuck_polls_ = waits && pcb_->lastack == last_acknowledged_ ? stuck_polls_ + 1 : 0;
  last_acknowledged_ = pcb_->lastack;
  return send_timeout_polls_ > 0 && stuck_polls_ > send_timeout_polls_;
}

err_t Channel::on_poll(void* self, tcp_pcb* pcb) {
  auto& channel = *static_cast<Channel*>(self);
  const bool stuck = channel.is_stuck();
  if (!stuck && !channel.make_progress()) return ERR_OK;
  if (!stuck && !lingered(++channel.linger_polls_)) return ERR_OK;
  tcp_abort(pcb);  // calls on_error(), which deletes the channel
  return ERR_ABRT;
}

// Moves queued data on and does what waited for that. True while a connection that is being closed still has data to
// send; the channel may be gone when it returns false.
bool Channel::make_progress() {
  {
    std::scoped_lock lock(latch_);
    push_ring();
    writer_.wake_one();
  }
  take_leave();
  if (pcb_ == nullptr) {
    delete_if_done();
    return false;
  }
  std::scoped_lock lock(latch_);
  return shut_ || released_;
}

void Channel::on_error(void* self, err_t) {
  auto& channel = *static_cast<Channel*>(self);
  channel.pcb_ = nullptr;
  {
    std::scoped_lock lock(channel.latch_);
    channel.reset_ = true;
    channel.unsent_.clear();
    channel.reader_.wake_all();
    channel.writer_.wake_all();
  }
  channel.delete_if_done();
}

}  // namespace kelda::net::lwip
