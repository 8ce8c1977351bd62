// JSON text for the --json outputs (RFC 8259): objects and arrays of strings, numbers and truth values.
#pragma once

#include <concepts>
#include <cstdio>
#include <string>
#include <string_view>

namespace kelda::tools {

class JsonWriter {
 public:
  void begin_object() { open('{'); }
  void end_object() { close('}'); }
  void begin_array(std::string_view name) {
    key(name);
    open('[');
  }
  void end_array() { close(']'); }

  template <class T>
  JsonWriter& field(std::string_view name, const T& v) {
    key(name);
    first_ = true;  // no comma between key and value
    value(v);
    return *this;
  }
  void value(std::string_view text) {
    separate();
    quote(text);
  }
  void value(const std::string& text) { value(std::string_view(text)); }
  void value(const char* text) { value(std::string_view(text)); }
  void value(bool truth) {
    separate();
    text_ += truth ? "true" : "false";
  }
  void value(std::integral auto number) {
    separate();
    text_ += std::to_string(number);
  }
  void value(double number) {
    separate();
    char digits[40];
    std::snprintf(digits, sizeof digits, "%.6g", number);
    text_ += digits;
  }
  const std::string& text() const { return text_; }

 private:
  void separate() {
    if (!first_) text_ += ',';
    first_ = false;
  }
  void open(char bracket) {
    separate();
    text_ += bracket;
    first_ = true;
  }
  void close(char bracket) {
    text_ += bracket;
    first_ = false;
  }
  void key(std::string_view name) {
    separate();
    quote(name);
    text_ += ':';
    first_ = true;
  }
  void quote(std::string_view text) {
    text_ += '"';
    for (const char c : text) {
      if (c == '"' || c == '\\') text_ += '\\';
      if (static_cast<unsigned char>(c) < 0x20) {
        char escaped[8];
        std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c));
        text_ += escaped;
      } else {
        text_ += c;
      }
    }
    text_ += '"';
  }

  std::string text_;
  bool first_ = true;
};

}  // namespace kelda::tools
