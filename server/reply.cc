#include "server/reply.h"

#include <charconv>
#include <cmath>
#include <cstdio>

#include "server/text.h"

namespace kelda::server {

void Reply::header(char type, std::size_t count) {
  if (overflowed()) return;
  char text[32];
  text[0] = type;
  char* end = std::to_chars(text + 1, text + 29, count).ptr;
  *end++ = '\r';
  *end++ = '\n';
  out_.append(text, static_cast<std::size_t>(end - text));
}

void Reply::simple(std::string_view text) {
  if (overflowed()) return;
  out_.push_back('+');
  out_.append(text);
  out_.append("\r\n");
}

void Reply::error(std::string_view text) {
  if (overflowed()) return;
  out_.push_back('-');
  for (const char c : text) out_.push_back(c == '\r' || c == '\n' ? ' ' : c);
  out_.append("\r\n");
}

void Reply::integer(std::int64_t value) {
  if (overflowed()) return;
  out_.push_back(':');
  append_integer(out_, value);
  out_.append("\r\n");
}

void Reply::bulk(std::string_view bytes) {
  header('$', bytes.size());
  if (overflowed()) return;
  out_.append(bytes);
  out_.append("\r\n");
}

void Reply::integer_bulk(std::int64_t value) {
  char digits[24];
  const char* end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  bulk({digits, static_cast<std::size_t>(end - digits)});
}

void Reply::null() {
  if (!overflowed()) out_.append(resp3_ ? "_\r\n" : "$-1\r\n");
}

void Reply::null_array() {
  if (!overflowed()) out_.append(resp3_ ? "_\r\n" : "*-1\r\n");
}

void Reply::array(std::size_t count) {
  header('*', count);
}

void Reply::map(std::size_t pairs) {
  resp3_ ? header('%', pairs) : header('*', pairs * 2);
}

void Reply::set(std::size_t count) {
  header(resp3_ ? '~' : '*', count);
}

void Reply::real(double value) {
  char text[64];
  int length = 0;
  if (std::isinf(value)) {
    length = std::snprintf(text, sizeof text, "%s", value > 0 ? "inf" : "-inf");
  } else {
    length = std::snprintf(text, sizeof text, "%.17g", value);
  }
  const std::string_view digits(text, static_cast<std::size_t>(length));
  if (!resp3_) return bulk(digits);
  out_.push_back(',');
  out_.append(digits);
  out_.append("\r\n");
}

void Reply::boolean(bool value) {
  if (!resp3_) return integer(value ? 1 : 0);
  out_.append(value ? "#t\r\n" : "#f\r\n");
}

void Reply::verbatim(std::string_view text) {
  if (!resp3_) return bulk(text);
  header('=', text.size() + 4);
  out_.append("txt:");
  out_.append(text);
  out_.append("\r\n");
}

void Reply::insert_array_header(std::size_t mark, std::size_t count) {
  char text[32];
  text[0] = '*';
  char* end = std::to_chars(text + 1, text + 29, count).ptr;
  *end++ = '\r';
  *end++ = '\n';
  out_.insert(mark, text, static_cast<std::size_t>(end - text));
}

void Reply::insert_pair_header(std::size_t mark, std::string_view first) {
  std::string text = "*2\r\n$" + std::to_string(first.size()) + "\r\n";
  text.append(first);
  text.append("\r\n");
  out_.insert(mark, text);
}

}  // namespace kelda::server
