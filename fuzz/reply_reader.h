// Reads RESP2 and RESP3 replies back, strictly: exact lengths, no byte left over.
#pragma once

#include <charconv>
#include <optional>
#include <string_view>

namespace kelda::fuzz {

class ReplyReader {
 public:
  explicit ReplyReader(std::string_view text) : rest_(text) {}

  bool at_end() const { return rest_.empty(); }
  // Skips one reply; false if the text does not begin with a whole one.
  bool skip() {
    if (rest_.empty()) return false;
    const char type = rest_[0];
    rest_.remove_prefix(1);
    const auto text = line();
    if (!text) return false;
    switch (type) {
      case '+':
      case '-':
      case ',': return !text->empty();
      case ':': return number(*text).has_value();
      case '_': return text->empty();
      case '#': return *text == "t" || *text == "f";
      case '$': return *text == "-1" || bulk(*text);
      case '=': return bulk(*text);
      case '*': return *text == "-1" || elements(*text, 1);
      case '~': return elements(*text, 1);
      case '%': return elements(*text, 2);
      default: return false;
    }
  }

 private:
  std::optional<std::string_view> line() {
    const std::size_t end = rest_.find('\r');
    if (end == std::string_view::npos || end + 1 >= rest_.size() || rest_[end + 1] != '\n') return std::nullopt;
    const std::string_view text = rest_.substr(0, end);
    rest_.remove_prefix(end + 2);
    if (text.find('\n') != std::string_view::npos) return std::nullopt;
    return text;
  }
  static std::optional<long long> number(std::string_view text) {
    long long value = 0;
    const auto [at, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || at != text.data() + text.size()) return std::nullopt;
    return value;
  }
  bool bulk(std::string_view length) {
    const auto bytes = number(length);
    if (!bytes || *bytes < 0 || rest_.size() < static_cast<std::size_t>(*bytes) + 2) return false;
    rest_.remove_prefix(static_cast<std::size_t>(*bytes));
    if (!rest_.starts_with("\r\n")) return false;
    rest_.remove_prefix(2);
    return true;
  }
  bool elements(std::string_view length, int parts) {
    const auto count = number(length);
    if (!count || *count < 0) return false;
    for (long long i = 0; i < *count * parts; ++i) {
      if (!skip()) return false;
    }
    return true;
  }

  std::string_view rest_;
};

// Nothing if the text is not a sequence of whole replies.
inline std::optional<std::size_t> count_replies(std::string_view text) {
  ReplyReader reader(text);
  std::size_t count = 0;
  for (; !reader.at_end(); ++count) {
    if (!reader.skip()) return std::nullopt;
  }
  return count;
}

}  // namespace kelda::fuzz
