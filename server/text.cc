#include "server/text.h"

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace kelda::server {

std::optional<std::int64_t> parse_integer(std::string_view text) {
  if (text.empty() || text.size() > 20) return std::nullopt;
  const bool negative = text[0] == '-';
  const char first = negative ? (text.size() > 1 ? text[1] : '\0') : text[0];
  if (first == '0') {
    if (text.size() == 1) return 0;
    return std::nullopt;
  }
  if (first < '1' || first > '9') return std::nullopt;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::uint64_t> parse_unsigned(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<long double> parse_long_double(std::string_view text) {
  // Longer than any number that is exact; the bound keeps the copy on the stack.
  char copy[512];
  if (text.empty() || text.size() >= sizeof copy) return std::nullopt;
  if (text[0] == ' ' || (text[0] >= '\t' && text[0] <= '\r')) return std::nullopt;
  text.copy(copy, text.size());
  copy[text.size()] = '\0';
  char* end = nullptr;
  errno = 0;
  const long double value = std::strtold(copy, &end);
  if (end != copy + text.size() || std::isnan(value)) return std::nullopt;
  if (errno == ERANGE && (std::isinf(value) || value == 0)) return std::nullopt;
  return value;
}

std::string format_long_double(long double value) {
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char text[5 * 1024];  // the largest long double has 4,933 digits before the point
  int length = std::snprintf(text, sizeof text, "%.17Lf", value);
  while (text[length - 1] == '0') --length;
  if (text[length - 1] == '.') --length;
  std::string result(text, static_cast<std::size_t>(length));
  if (result == "-0") result = "0";
  return result;
}

void append_integer(std::string& out, std::int64_t value) {
  char digits[24];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, value);
  (void)error;  // 24 bytes hold every 64-bit number
  out.append(digits, static_cast<std::size_t>(end - digits));
}

namespace {
constexpr char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
}  // namespace

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}

void append_lower(std::string& out, std::string_view text) {
  for (const char c : text) out.push_back(lower(c));
}

std::string to_lower(std::string_view text) {
  std::string result;
  append_lower(result, text);
  return result;
}

namespace {

bool is_blank(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || c == '\0';
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (lower(c) >= 'a' && lower(c) <= 'f') return lower(c) - 'a' + 10;
  return -1;
}

// What the escape at line[at] (the backslash) stands for; moves `at` to its last character.
char unescape(std::string_view line, std::size_t& at) {
  if (at + 3 < line.size() && line[at + 1] == 'x' && hex_digit(line[at + 2]) >= 0 && hex_digit(line[at + 3]) >= 0) {
    at += 3;
    return static_cast<char>(hex_digit(line[at - 1]) * 16 + hex_digit(line[at]));
  }
  switch (line[++at]) {
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case 'b':
      return '\b';
    case 'a':
      return '\a';
    default:
      return line[at];
  }
}

// Appends the quoted text that starts after the quote at line[at]; false when it does not end, or goes on after the
// end.
bool read_quoted(std::string_view line, std::size_t& at, std::string& word) {
  const char quote = line[at++];
  for (; at < line.size(); ++at) {
    if (line[at] == quote) {
      ++at;
      return at == line.size() || is_blank(line[at]);
    }
    if (line[at] == '\\' && at + 1 < line.size()) {
      if (quote == '"') {
        word.push_back(unescape(line, at));
        continue;
      }
      if (line[at + 1] == '\'') ++at;
    }
    word.push_back(line[at]);
  }
  return false;
}

}  // namespace

std::optional<std::vector<std::string>> split_line(std::string_view line) {
  std::vector<std::string> words;
  std::size_t at = 0;
  while (true) {
    while (at < line.size() && is_blank(line[at])) ++at;
    if (at == line.size()) return words;
    std::string word;
    while (at < line.size() && !is_blank(line[at])) {
      if (line[at] == '"' || line[at] == '\'') {
        if (!read_quoted(line, at, word)) return std::nullopt;
      } else {
        word.push_back(line[at++]);
      }
    }
    words.push_back(std::move(word));
  }
}

std::string human_bytes(std::uint64_t bytes) {
  char text[32];
  if (bytes < 1024) {
    std::snprintf(text, sizeof text, "%lluB", static_cast<unsigned long long>(bytes));
    return text;
  }
  double value = static_cast<double>(bytes) / 1024;
  const char* unit = "KMGT";
  while (value >= 1024 && unit[1] != '\0') {
    value /= 1024;
    ++unit;
  }
  std::snprintf(text, sizeof text, "%.2f%c", value, *unit);
  return text;
}

}  // namespace kelda::server
