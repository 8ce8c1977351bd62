// Writes replies in RESP2 or RESP3 at the end of an output buffer.
//
// Contract: whatever a handler writes is one complete reply, or it is cut off again at a mark (size before the call).
// Types that RESP2 lacks are written as Redis does: a map as a flat array, a double as a bulk string, a boolean as 0/1.
// A buffer that has grown over its limit takes no more, but for the end of what is being written: the caller replaces
// the reply by an error (overflowed()).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace kelda::server {

class Reply {
 public:
  Reply(std::string& out, bool resp3, std::size_t limit_bytes) : out_(out), resp3_(resp3), limit_bytes_(limit_bytes) {}

  bool resp3() const { return resp3_; }
  void set_resp3(bool resp3) { resp3_ = resp3; }

  void ok() { out_.append("+OK\r\n"); }
  void simple(std::string_view text);  // one line
  void error(std::string_view text);   // "ERR what": line breaks become blanks
  void integer(std::int64_t value);
  void bulk(std::string_view bytes);
  void integer_bulk(std::int64_t value);
  void null();        // RESP2: the null bulk
  void null_array();  // RESP2: the null array
  void array(std::size_t count);
  void map(std::size_t pairs);
  void set(std::size_t count);
  void real(double value);
  void boolean(bool value);
  void verbatim(std::string_view text);  // plain text for people

  // For aggregates whose length is known only afterwards: elements are written first, then the header goes before them.
  std::size_t mark() const { return out_.size(); }
  void insert_array_header(std::size_t mark, std::size_t count);
  // SCAN's shape: an array of the cursor and what has been written since the mark.
  void insert_pair_header(std::size_t mark, std::string_view first);
  std::string_view since(std::size_t mark) const { return std::string_view(out_).substr(mark); }
  void cut(std::size_t mark) { out_.resize(mark); }
  bool overflowed() const { return out_.size() > limit_bytes_; }

 private:
  void header(char type, std::size_t count);

  std::string& out_;
  bool resp3_;
  const std::size_t limit_bytes_;
};

}  // namespace kelda::server
