#include "net/pipe_sim.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <mutex>
#include <vector>

#include "common/prng.h"

namespace kelda::net {
namespace {

using runtime::TimeNs;

constexpr std::size_t kPieceBytes = 1460;

bool happens(Prng& dice, double probability) {
  return static_cast<double>(dice.next() >> 11) < probability * 9007199254740992.0;  // 2^53
}

// One direction. Everything is guarded by `latch`.
struct Stream {
  struct Piece {
    std::vector<std::byte> bytes;
    std::size_t read_bytes = 0;
    TimeNs arrives_ns = 0;
  };

  Stream(const PipeOptions& o, std::uint64_t seed) : options(o), dice(seed) {}

  // Pieces never overtake each other: what follows a lost one waits for it.
  TimeNs arrival() {
    TimeNs arrives_ns = runtime::now_ns() + options.delay_ns;
    if (options.loss > 0 && happens(dice, options.loss)) arrives_ns += options.retransmit_ns;
    last_arrival_ns = std::max(last_arrival_ns, arrives_ns);
    return last_arrival_ns;
  }

  std::size_t take(MutableBytes out) {
    std::size_t limit = out.size();
    if (options.short_reads) limit = std::min(limit, dice.between(1, std::max<std::size_t>(1, pieces.front().bytes.size())));
    std::size_t taken = 0;
    const TimeNs now = runtime::now_ns();
    while (taken < limit && !pieces.empty() && pieces.front().arrives_ns <= now) {
      Piece& piece = pieces.front();
      const std::size_t n = std::min(limit - taken, piece.bytes.size() - piece.read_bytes);
      std::memcpy(out.data() + taken, piece.bytes.data() + piece.read_bytes, n);
      piece.read_bytes += n;
      taken += n;
      if (piece.read_bytes == piece.bytes.size()) pieces.pop_front();
    }
    buffered_bytes -= taken;
    return taken;
  }

  void put(Bytes data) {
    buffered_bytes += data.size();
    const TimeNs arrives_ns = arrival();
    if (vanished) return;  // it fills the window and is never seen again
    pieces.push_back({{data.begin(), data.end()}, 0, arrives_ns});
  }

  const PipeOptions options;
  runtime::SpinLatch latch;
  Prng dice;
  std::deque<Piece> pieces;
  std::size_t buffered_bytes = 0;
  TimeNs last_arrival_ns = 0;
  bool ended = false;     // the writer has gone; the reader may still take what is there
  TimeNs end_arrives_ns = 0;
  bool refused = false;   // the reader has gone: writes fail
  bool broken = false;    // both have
  bool vanished = false;
  runtime::WaitQueue readers, writers;

  void wake_all() {
    readers.wake_all();
    writers.wake_all();
  }
};

class Pipe : public PipeConnection {
 public:
  Pipe(std::shared_ptr<Stream> in, std::shared_ptr<Stream> out, std::string peer)
      : in_(std::move(in)), out_(std::move(out)), peer_(std::move(peer)) {}
  ~Pipe() override { leave(); }

  Result<std::size_t> read(MutableBytes out, TimeNs deadline_ns) override {
    if (out.empty()) return std::size_t{0};
    std::scoped_lock lock(in_->latch);
    while (true) {
      if (in_->broken || in_->refused) return Error(Code::kClosed);
      const TimeNs now = runtime::now_ns();
      TimeNs next_ns = runtime::kNever;
      if (!in_->pieces.empty()) next_ns = in_->pieces.front().arrives_ns;
      else if (in_->ended && !in_->vanished) next_ns = in_->end_arrives_ns;
      if (next_ns <= now) {
        const std::size_t n = in_->pieces.empty() ? 0 : in_->take(out);
        in_->writers.wake_all();
        return n;
      }
      if (deadline_ns <= now) return Error(Code::kTimeout);
      in_->readers.wait_until(in_->latch, std::min(deadline_ns, next_ns));
    }
  }

  Result<> write(std::span<const Bytes> pieces, TimeNs deadline_ns) override {
    for (Bytes piece : pieces) {
      while (!piece.empty()) {
        const std::size_t n = TRY(write_some(piece, deadline_ns));
        piece = piece.subspan(n);
      }
    }
    return {};
  }

  void finish_writing() override { end_writing(); }
  void shut_down() override { leave(); }
  std::string peer() const override { return peer_; }
  Presence presence() override {
    std::scoped_lock lock(in_->latch);
    if (in_->broken || in_->refused) return Presence::kGone;
    return in_->ended && !in_->vanished && in_->end_arrives_ns <= runtime::now_ns() ? Presence::kEnded : Presence::kThere;
  }

  void cut() override {
    for (Stream* stream : {in_.get(), out_.get()}) {
      std::scoped_lock lock(stream->latch);
      stream->broken = true;
      stream->wake_all();
    }
  }

  void vanish() override {
    std::scoped_lock lock(out_->latch);
    out_->vanished = true;
    out_->pieces.clear();
  }

 private:
  Result<std::size_t> write_some(Bytes data, TimeNs deadline_ns) {
    std::scoped_lock lock(out_->latch);
    while (true) {
      if (out_->broken || out_->refused || out_->ended) return Error(Code::kClosed);
      const std::size_t window = out_->options.window_bytes;
      if (out_->buffered_bytes < window) {
        const std::size_t n = std::min({data.size(), kPieceBytes, window - out_->buffered_bytes});
        out_->put(data.first(n));
        out_->readers.wake_all();
        return n;
      }
      if (!out_->writers.wait_until(out_->latch, deadline_ns)) return Error(Code::kTimeout);
    }
  }

  void end_writing() {
    std::scoped_lock lock(out_->latch);
    if (!out_->ended) out_->end_arrives_ns = out_->arrival();
    out_->ended = true;
    out_->wake_all();
  }

  // The other side still reads what was written (N3); what it writes from now on is refused.
  void leave() {
    end_writing();
    std::scoped_lock lock(in_->latch);
    in_->refused = true;
    in_->wake_all();
  }

  const std::shared_ptr<Stream> in_, out_;
  const std::string peer_;
};

// The server's end of a dialled pipe: gives its seat back when it goes.
class SeatedPipe : public Pipe {
 public:
  SeatedPipe(std::shared_ptr<Stream> in, std::shared_ptr<Stream> out, std::string peer, Dealer::Seat seat)
      : Pipe(std::move(in), std::move(out), std::move(peer)), seat_(std::move(seat)) {}

 private:
  Dealer::Seat seat_;
};

}  // namespace

PipeEnds make_pipe(const PipeOptions& options) {
  auto there = std::make_shared<Stream>(options, options.seed * 2);
  auto back = std::make_shared<Stream>(options, options.seed * 2 + 1);
  return {std::make_unique<Pipe>(back, there, "pipe:b"), std::make_unique<Pipe>(there, back, "pipe:a")};
}

PipeListener::PipeListener(std::string name, std::uint32_t core_count, const PipeOptions& options)
    : name_(std::move(name)), options_(options), dealer_(core_count) {}

Result<std::unique_ptr<PipeConnection>> PipeListener::dial() {
  std::uint64_t number;
  Dealer::Seat seat;
  {
    std::scoped_lock lock(latch_);
    number = dialed_++;
    seat = dealer_.seat();
  }
  const std::uint64_t seed = options_.seed + number * 1000;
  auto there = std::make_shared<Stream>(options_, seed * 2);
  auto back = std::make_shared<Stream>(options_, seed * 2 + 1);
  const std::uint32_t core = seat.core();
  const std::string peer = "pipe:" + std::to_string(number);
  if (!dealer_.deal(core, std::make_unique<SeatedPipe>(there, back, peer, std::move(seat)))) return Error(Code::kClosed);
  return std::make_unique<Pipe>(back, there, name_);
}

}  // namespace kelda::net
