#include "server/request_parser.h"

#include <algorithm>
#include <cstring>

#include "common/assert.h"
#include "server/text.h"

namespace kelda::server {

using Outcome = RequestParser::Outcome;

namespace {

// What one argument takes beside its bytes.
constexpr std::size_t kArgumentBytes = sizeof(std::string_view) + 2 * sizeof(std::uint32_t);

// As for inline requests; of a line that is not complete all that has come counts.
bool header_too_long(std::size_t there, bool complete, std::string_view text) {
  return complete ? text.size() >= kMaxInlineRequestBytes : there > kMaxInlineRequestBytes;
}

}  // namespace

Outcome RequestParser::fail(std::string error) {
  error_ = "Protocol error: " + std::move(error);
  return Outcome::kError;
}

Outcome RequestParser::next(InputBuffer& in, const ParserLimits& limits) {
  if (finished_) {
    in.consume(finished_bytes_);
    finished_bytes_ = 0;
    finished_ = refused_ = false;
  }
  while (true) {
    if (in_request()) return bulks(in, limits);
    const std::string_view data = in.data();
    if (data.empty()) {
      needed_bytes_ = 0;
      return Outcome::kNeedMore;
    }
    const Outcome outcome = data[0] == '*' ? multibulk_header(in, limits) : inline_request(in);
    if (outcome != Outcome::kRequest || !views_.empty()) return outcome;
    // An empty line, an array of nothing, or an array whose bulks follow.
  }
}

Outcome RequestParser::inline_request(InputBuffer& in) {
  const std::string_view data = in.data();
  const std::size_t newline = data.find('\n', scanned_);
  // Whether a line is too long must not depend on how much of it has come.
  if (std::min(newline, data.size()) > kMaxInlineRequestBytes) return fail("too big inline request");
  if (newline == std::string_view::npos) {
    scanned_ = data.size();
    needed_bytes_ = data.size() + 1;
    return Outcome::kNeedMore;
  }
  scanned_ = 0;
  const std::size_t length = newline > 0 && data[newline - 1] == '\r' ? newline - 1 : newline;
  auto words = split_line(data.substr(0, length));
  if (!words) return fail("unbalanced quotes in request");
  words_ = *std::move(words);
  views_.assign(words_.begin(), words_.end());
  if (views_.empty()) {
    in.consume(newline + 1);
  } else {
    finished_bytes_ = newline + 1;
    finished_ = true;
  }
  return Outcome::kRequest;
}

bool RequestParser::line(std::string_view data, std::string_view& text) {
  const std::size_t from = std::max(scanned_, position_);
  const std::size_t end = data.find('\r', from);
  // The byte after '\r' is taken as '\n' unseen, as Redis does, but it must be there.
  if (end == std::string_view::npos || end + 1 >= data.size()) {
    scanned_ = end == std::string_view::npos ? data.size() : end;
    return false;
  }
  text = data.substr(position_, end - position_);
  position_ = end + 2;
  scanned_ = position_;
  return true;
}

Outcome RequestParser::multibulk_header(InputBuffer& in, const ParserLimits& limits) {
  const std::string_view data = in.data();
  std::string_view text;
  position_ = 0;
  const bool complete_line = line(data, text);
  if (header_too_long(data.size(), complete_line, text)) return fail("too big mbulk count string");
  if (!complete_line) {
    needed_bytes_ = data.size() + 1;
    return Outcome::kNeedMore;
  }
  const auto count = parse_integer(text.substr(1));
  if (!count || *count > kMaxArguments) return fail("invalid multibulk length");
  if (*count > kMaxUnauthenticatedArguments && limits.unauthenticated) return fail("unauthenticated multibulk length");
  extents_.clear();
  views_.clear();
  if (*count <= 0) {
    in.consume(position_);
    position_ = scanned_ = 0;
    return Outcome::kRequest;
  }
  arguments_left_ = *count;
  bulk_bytes_ = -1;
  return Outcome::kRequest;
}

Outcome RequestParser::bulk_header(InputBuffer& in, const ParserLimits& limits) {
  const std::string_view data = in.data();
  std::string_view text;
  const std::size_t start = position_;
  const bool complete_line = line(data, text);
  if (header_too_long(data.size() - start, complete_line, text)) return fail("too big bulk count string");
  if (!complete_line) {
    needed_bytes_ = data.size() + 1;
    return Outcome::kNeedMore;
  }
  if (data[start] != '$') return fail(std::string("expected '$', got '") + data[start] + "'");
  const auto size = parse_integer(text.substr(1));
  if (!size || *size < 0 || *size > kMaxBulkBytes) return fail("invalid bulk length");
  if (*size > kMaxUnauthenticatedBulkBytes && limits.unauthenticated) return fail("unauthenticated bulk length");

  const auto bytes = static_cast<std::uint64_t>(*size);
  const bool too_large = bytes > limits.max_stored_bulk_bytes;
  const bool request_too_large = position_ + bytes + (extents_.size() + 1) * kArgumentBytes > limits.max_request_bytes;
  if (!refused_ && (too_large || request_too_large)) {
    refusal_ = {extents_.size(), bytes, !too_large};
    refused_ = true;
  }
  if (refused_) {
    // Nobody will look at what was read so far or comes after.
    in.consume(position_);
    position_ = scanned_ = 0;
    skip_bytes_ = bytes + 2;
  }
  bulk_bytes_ = *size;
  return Outcome::kRequest;
}

// Throws away what there is of the bulk; true when it has ended.
bool RequestParser::skip(InputBuffer& in) {
  const std::size_t there = std::min<std::uint64_t>(skip_bytes_, in.data().size());
  in.consume(there);
  skip_bytes_ -= there;
  needed_bytes_ = std::min<std::uint64_t>(skip_bytes_, InputBuffer::kReadAheadBytes);
  return skip_bytes_ == 0;
}

bool RequestParser::take(InputBuffer& in) {
  const auto size = static_cast<std::size_t>(bulk_bytes_);
  needed_bytes_ = position_ + size + 2;
  if (in.data().size() < needed_bytes_) return false;
  extents_.push_back({static_cast<std::uint32_t>(position_), static_cast<std::uint32_t>(size)});
  position_ = scanned_ = needed_bytes_;
  return true;
}

Outcome RequestParser::bulks(InputBuffer& in, const ParserLimits& limits) {
  for (std::size_t read = 0; arguments_left_ > 0; ++read) {
    if (read == limits.arguments_a_call) return Outcome::kPaused;
    if (bulk_bytes_ < 0) {
      const Outcome outcome = bulk_header(in, limits);
      if (outcome != Outcome::kRequest) return outcome;
    }
    if (!(refused_ ? skip(in) : take(in))) return Outcome::kNeedMore;
    bulk_bytes_ = -1;
    --arguments_left_;
  }
  return complete(in, limits);
}

Outcome RequestParser::complete(InputBuffer& in, const ParserLimits& limits) {
  const char* base = in.data().data();
  if (!refused_) {
    views_.reserve(extents_.size());
    const std::size_t end = views_.size() + std::min(extents_.size() - views_.size(), limits.arguments_a_call);
    for (std::size_t i = views_.size(); i < end; ++i) views_.emplace_back(base + extents_[i].offset, extents_[i].size);
    completing_ = end < extents_.size();
    if (completing_) return Outcome::kPaused;
  }
  finished_ = true;
  finished_bytes_ = position_;
  position_ = scanned_ = 0;
  return Outcome::kRequest;
}

void RequestParser::shrink() {
  if (in_request() || finished_) return;
  if (extents_.capacity() > 64) std::vector<Extent>().swap(extents_);
  if (views_.capacity() > 64) std::vector<std::string_view>().swap(views_);
  std::vector<std::string>().swap(words_);
}

}  // namespace kelda::server
