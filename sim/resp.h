// The Redis protocol from the client's side: requests as arrays of bulk strings, replies parsed into values.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/net.h"

namespace kelda::sim {

struct Reply {
  char type = '+';  // + - : $ *
  bool null = false;
  std::int64_t integer = 0;
  std::string text;  // + - $
  std::vector<Reply> items;

  bool is_error() const { return type == '-'; }
  bool is_error(std::string_view prefix) const { return is_error() && text.starts_with(prefix); }
  bool is(std::string_view simple) const { return type == '+' && text == simple; }
  // Short, for traces.
  std::string to_string() const;
};

void append_command(std::string& out, std::initializer_list<std::string_view> words);
void append_command(std::string& out, const std::vector<std::string>& words);

// Over one end of a pipe; used by one fiber.
class RespClient {
 public:
  explicit RespClient(net::Connection& connection) : connection_(connection) {}
  Result<> send(std::string_view requests, runtime::TimeNs deadline_ns) {
    return connection_.write(as_bytes(requests), deadline_ns);
  }
  // kClosed, kTimeout, kCorrupt (what came is no reply).
  Result<Reply> receive(runtime::TimeNs deadline_ns);
  Result<Reply> call(std::initializer_list<std::string_view> words, runtime::TimeNs deadline_ns);

 private:
  net::Connection& connection_;
  std::string buffer_;
  std::size_t used_ = 0;
};

}  // namespace kelda::sim
