#include "net/frame_link_hosted.h"

#include <cstring>

namespace kelda::net {
namespace {

constexpr std::size_t kLengthBytes = 4;
constexpr std::size_t kReadBytes = 64 * 1024;
// Each way: beyond it reading waits, and frames to send are dropped, as a device would.
constexpr std::size_t kBufferLimitBytes = 4 << 20;

std::size_t length_at(const std::byte* at) {
  std::size_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) length = length << 8 | static_cast<std::uint8_t>(at[i]);
  return length;
}

}  // namespace

Result<std::unique_ptr<FrameLink>> FrameLink::start(FileDescriptor socket, const DhcpLease& lease) {
  std::unique_ptr<FrameLink> link(new FrameLink(std::move(socket), lease));
  FrameLink& self = *link;
  self.fibers_.add();
  TRY(runtime::Core::current().spawn([&self] { self.read_all(); }, {.name = "frames in"}));
  self.fibers_.add();
  TRY(runtime::Core::current().spawn([&self] { self.write_all(); }, {.name = "frames out"}));
  return link;
}

FrameLink::~FrameLink() {
  ending_ = true;
  link_.shut_down();
  outgoing_ready_.set();
  fibers_.wait();
}

void FrameLink::read_all() {
  std::vector<std::byte> chunk(kReadBytes);
  while (!ending_) {
    auto got = link_.read(chunk, runtime::kNever);
    if (!got || *got == 0) break;
    if (incoming_start_ == incoming_.size()) {
      incoming_.clear();
      incoming_start_ = 0;
    }
    incoming_.insert(incoming_.end(), chunk.begin(), chunk.begin() + static_cast<std::ptrdiff_t>(*got));
    while (incoming_.size() - incoming_start_ > kBufferLimitBytes && !ending_) runtime::Core::current().yield();
    // What was handed over already is dropped when it has become the larger part.
    if (incoming_start_ > incoming_.size() / 2) {
      incoming_.erase(incoming_.begin(), incoming_.begin() + static_cast<std::ptrdiff_t>(incoming_start_));
      incoming_start_ = 0;
    }
  }
  ended_->set();
  fibers_.done();
}

void FrameLink::write_all() {
  std::vector<std::byte> sending;
  while (!ending_) {
    outgoing_ready_.wait();
    outgoing_ready_.reset();
    sending.clear();
    sending.swap(outgoing_);
    const Bytes bytes(sending);
    if (!bytes.empty() && !link_.write({&bytes, 1}, runtime::kNever)) break;
  }
  fibers_.done();
}

// Empty when the next one has not come in completely.
Bytes FrameLink::next_frame() const {
  const Bytes rest = Bytes(incoming_).subspan(incoming_start_);
  if (rest.size() < kLengthBytes) return {};
  const std::size_t length = length_at(rest.data());
  return rest.size() - kLengthBytes < length ? Bytes() : rest.subspan(kLengthBytes, length);
}

std::size_t FrameLink::receive(Sink& sink, std::size_t limit) {
  std::size_t count = 0;
  for (Bytes frame; count < limit && !(frame = next_frame()).empty(); ++count) {
    incoming_start_ += kLengthBytes + frame.size();
    if (auto reply = answer_dhcp(frame, lease_)) {
      const Bytes bytes(*reply);
      send({&bytes, 1}, {});
    } else {
      sink.frame(frame, true);  // it never left this computer's memory
    }
  }
  return count;
}

bool FrameLink::send(std::span<const Bytes> pieces, PartialChecksum) {
  std::size_t size = 0;
  for (Bytes piece : pieces) size += piece.size();
  if (outgoing_.size() + size > kBufferLimitBytes) return false;
  for (std::size_t i = 0; i < kLengthBytes; ++i)
    outgoing_.push_back(static_cast<std::byte>(size >> 8 * (kLengthBytes - 1 - i)));
  for (Bytes piece : pieces) outgoing_.insert(outgoing_.end(), piece.begin(), piece.end());
  return true;
}

void FrameLink::flush() {
  if (!outgoing_.empty()) outgoing_ready_.set();
}

}  // namespace kelda::net
