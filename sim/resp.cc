#include "sim/resp.h"

#include <charconv>

namespace kelda::sim {

namespace {

enum class Parsed { kYes, kNeedMore, kGarbage };

Parsed parse(std::string_view in, std::size_t& at, Reply& out) {
  const std::size_t end = in.find("\r\n", at);
  if (end == std::string_view::npos) return Parsed::kNeedMore;
  const std::string_view line = in.substr(at, end - at);
  if (line.empty()) return Parsed::kGarbage;
  at = end + 2;
  out.type = line[0];
  const std::string_view rest = line.substr(1);
  if (out.type == '+' || out.type == '-') {
    out.text = rest;
    return Parsed::kYes;
  }
  const auto [stop, error] = std::from_chars(rest.data(), rest.data() + rest.size(), out.integer);
  if (error != std::errc() || stop != rest.data() + rest.size()) return Parsed::kGarbage;
  if (out.type == ':') return Parsed::kYes;
  if (out.type != '$' && out.type != '*') return Parsed::kGarbage;
  out.null = out.integer == -1;
  if (out.null) return Parsed::kYes;
  if (out.integer < 0) return Parsed::kGarbage;
  const auto count = static_cast<std::size_t>(out.integer);
  if (out.type == '$') {
    if (in.size() < at + count + 2) return Parsed::kNeedMore;
    out.text = in.substr(at, count);
    at += count + 2;
    return in.substr(at - 2, 2) == "\r\n" ? Parsed::kYes : Parsed::kGarbage;
  }
  for (std::size_t i = 0; i < count; ++i) {
    const Parsed item = parse(in, at, out.items.emplace_back());
    if (item != Parsed::kYes) return item;
  }
  return Parsed::kYes;
}

}  // namespace

std::string Reply::to_string() const {
  if (null) return "nil";
  if (type == ':') return std::to_string(integer);
  if (type != '*') return text.size() <= 60 ? text : text.substr(0, 60) + "...";
  std::string all = "[";
  for (const Reply& item : items) all += (all.size() > 1 ? " " : "") + item.to_string();
  return all + "]";
}

void append_command(std::string& out, std::initializer_list<std::string_view> words) {
  out += "*" + std::to_string(words.size()) + "\r\n";
  for (const std::string_view word : words) {
    out += "$" + std::to_string(word.size()) + "\r\n";
    out.append(word).append("\r\n");
  }
}

void append_command(std::string& out, const std::vector<std::string>& words) {
  out += "*" + std::to_string(words.size()) + "\r\n";
  for (const std::string& word : words) {
    out += "$" + std::to_string(word.size()) + "\r\n";
    out.append(word).append("\r\n");
  }
}

Result<Reply> RespClient::receive(runtime::TimeNs deadline_ns) {
  while (true) {
    Reply reply;
    std::size_t at = used_;
    const Parsed parsed = parse(buffer_, at, reply);
    if (parsed == Parsed::kGarbage) return Error(Code::kCorrupt, "no reply: " + buffer_.substr(used_, 80));
    if (parsed == Parsed::kYes) {
      used_ = at;
      if (used_ == buffer_.size()) {
        buffer_.clear();
        used_ = 0;
      }
      return reply;
    }
    std::byte piece[4096];
    const std::size_t count = TRY(connection_.read(piece, deadline_ns));
    if (count == 0) return Error(Code::kClosed);
    buffer_.append(as_view({piece, count}));
  }
}

Result<Reply> RespClient::call(std::initializer_list<std::string_view> words, runtime::TimeNs deadline_ns) {
  std::string request;
  append_command(request, words);
  TRY(send(request, deadline_ns));
  return receive(deadline_ns);
}

}  // namespace kelda::sim
