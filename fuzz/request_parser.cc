// The request parser: what it makes of a stream must not depend on the pieces in which the stream arrives, and what it
// holds is bounded.
#include <vector>

#include "common/assert.h"
#include "common/prng.h"
#include "fuzz/fuzz_target.h"
#include "fuzz/input.h"
#include "server/request_parser.h"

namespace kelda::fuzz {

namespace {

using server::InputBuffer;
using server::RequestParser;

// Small, so that inputs reach them.
constexpr std::size_t kMaxBulk = 300, kMaxRequest = 700;

// Everything that the parser says of a stream, as text.
class Listener {
 public:
  explicit Listener(bool unauthenticated)
      : limits_{.max_stored_bulk_bytes = kMaxBulk, .max_request_bytes = kMaxRequest, .unauthenticated = unauthenticated} {}

  void feed(Bytes piece) {
    while (!piece.empty() && !failed_) {
      const MutableBytes room = buffer_.room(parser_.needed_bytes());
      const std::size_t count = std::min(room.size(), piece.size());
      std::memcpy(room.data(), piece.data(), count);
      buffer_.filled(count);
      piece = piece.subspan(count);
      listen();
    }
  }
  const std::vector<std::string>& heard() const { return heard_; }

 private:
  void listen() {
    while (!failed_) {
      const auto outcome = parser_.next(buffer_, limits_);
      KELDA_ASSERT(buffer_.capacity() <= 2 * server::kMaxInlineRequestBytes + 4 * InputBuffer::kReadAheadBytes);
      if (outcome == RequestParser::Outcome::kNeedMore) return parser_.shrink();
      if (outcome == RequestParser::Outcome::kError) {
        heard_.push_back("error " + parser_.error());
        failed_ = true;
      } else if (const auto* refusal = parser_.refusal()) {
        heard_.push_back("refused " + std::to_string(refusal->argument) + " " + std::to_string(refusal->bytes) + " " +
                         std::to_string(refusal->request_too_large));
      } else {
        KELDA_ASSERT(!parser_.arguments().empty());
        std::string request = "request";
        std::size_t bytes = 0;
        for (const std::string_view argument : parser_.arguments()) {
          bytes += argument.size();
          request.append(" " + std::to_string(argument.size()) + ":").append(argument);
        }
        KELDA_ASSERT(bytes <= server::kMaxInlineRequestBytes + kMaxRequest);
        heard_.push_back(std::move(request));
      }
    }
  }

  const server::ParserLimits limits_;
  InputBuffer buffer_;
  RequestParser parser_;
  std::vector<std::string> heard_;
  bool failed_ = false;
};

void run(Bytes bytes) {
  Input input(bytes);
  const auto seed = input.number<std::uint16_t>();
  const Bytes stream = input.rest();
  const bool unauthenticated = seed % 2 != 0;
  Listener whole(unauthenticated), pieces(unauthenticated);
  whole.feed(stream);
  Prng dice(seed);
  for (Bytes rest = stream; !rest.empty();) {
    const std::size_t most = dice.one_in(2) ? 3 : 200;
    const std::size_t count = std::min<std::size_t>(dice.between(1, most), rest.size());
    pieces.feed(rest.first(count));
    rest = rest.subspan(count);
  }
  KELDA_ASSERT(whole.heard() == pieces.heard());
}

}  // namespace

const FuzzTarget kRequestParser = {"request_parser", run, 100'000};

}  // namespace kelda::fuzz
