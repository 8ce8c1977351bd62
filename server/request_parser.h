// Reads requests in RESP (arrays of bulk strings) or as inline commands out of an InputBuffer, as bytes come in.
//
// Contract
//  1. Arguments are views into the buffer: valid until the next call of the parser or change of the buffer.
//  2. What a client can make the parser hold is bounded: a bulk over `max_stored_bulk_bytes`, and every bulk after the
//     request has reached `max_request_bytes`, is read and thrown away; the request then says so (`refused`), and the
//     connection lives on. Only a request that breaks the protocol ends it, with Redis's own words.
//  3. No byte is scanned twice: a partial request is taken up where it stopped.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/input_buffer.h"
#include "server/limits.h"

namespace kelda::server {

using Arguments = std::span<const std::string_view>;

struct ParserLimits {
  std::size_t max_stored_bulk_bytes = kMaxValueBytes + 4096;
  std::size_t max_request_bytes = 64_MiB;
  bool unauthenticated = false;
  // How much one call of next() may do; a request may have a million arguments.
  std::size_t arguments_a_call = SIZE_MAX;
};

class RequestParser {
 public:
  enum class Outcome : std::uint8_t {
    kNeedMore,  // nothing complete yet; needed_bytes() says how much the buffer must be able to hold
    kPaused,    // arguments_a_call are read: let others run, then call again with the same input
    kRequest,   // arguments() is complete, or refusal() says why it is not
    kError,     // error() says why: reply and close
  };

  // Why a well-formed request cannot be carried out; `argument` is its index.
  struct Refusal {
    std::size_t argument = 0;
    std::uint64_t bytes = 0;
    bool request_too_large = false;  // not this argument alone
  };

  Outcome next(InputBuffer& in, const ParserLimits& limits);

  Arguments arguments() const { return views_; }
  const Refusal* refusal() const { return refused_ ? &refusal_ : nullptr; }
  const std::string& error() const { return error_; }
  std::size_t needed_bytes() const { return needed_bytes_; }
  // True between the header and the last byte of an array.
  bool in_request() const { return arguments_left_ > 0 || completing_; }
  // Memory that it takes beside the buffer.
  std::size_t memory_bytes() const {
    return extents_.capacity() * sizeof(Extent) + views_.capacity() * sizeof(std::string_view);
  }
  // Gives back memory that an unusually long request took.
  void shrink();

 private:
  struct Extent {
    std::uint32_t offset, size;
  };

  Outcome fail(std::string error);
  Outcome inline_request(InputBuffer& in);
  Outcome multibulk_header(InputBuffer& in, const ParserLimits& limits);
  Outcome bulks(InputBuffer& in, const ParserLimits& limits);
  // One bulk's "$n\r\n"; kRequest: read.
  Outcome bulk_header(InputBuffer& in, const ParserLimits& limits);
  bool skip(InputBuffer& in);
  bool take(InputBuffer& in);
  Outcome complete(InputBuffer& in, const ParserLimits& limits);
  // The line at data()[position_...] without its "\r\n"; false if it is not there yet.
  bool line(std::string_view data, std::string_view& text);

  std::int64_t arguments_left_ = 0;  // of the array that is being read
  std::int64_t bulk_bytes_ = -1;     // of the bulk whose header was read
  std::uint64_t skip_bytes_ = 0;     // still to be thrown away
  std::size_t position_ = 0;         // in data(): what is read of this request
  std::size_t scanned_ = 0;          // in data(): no end of line before this
  std::size_t finished_bytes_ = 0;   // of the last complete request, consumed by the next call
  std::size_t needed_bytes_ = 0;
  bool completing_ = false;  // all bulks are there, not all views yet
  bool finished_ = false;    // the last call returned kRequest
  bool refused_ = false;
  Refusal refusal_;
  std::vector<Extent> extents_;
  std::vector<std::string_view> views_;
  std::vector<std::string> words_;  // of an inline command, unquoted
  std::string error_;
};

}  // namespace kelda::server
