// Keys and values of recorded transactions (sim/recorder.h) as the store knows them, and what is expected of their
// history.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "history/check.h"
#include "sim/recorder.h"

namespace kelda::testing {

// Lists and registers; some of both have values that do not fit a page.
struct RecordedKeys {
  history::Key lists = 6, registers = 6;

  history::Key count() const { return lists + registers; }
  bool is_list(history::Key key) const { return key < lists; }
  static bool is_large(history::Key key) { return key % 3 == 2; }
  static std::string name(history::Key key) { return "key" + std::to_string(key); }
};

// The values, eight bytes each, after their number; then filler.
inline std::string encode_values(history::Key key, const std::vector<history::Value>& values) {
  const std::uint64_t count = values.size();
  std::string text(reinterpret_cast<const char*>(&count), sizeof count);
  text.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(history::Value));
  if (RecordedKeys::is_large(key)) text.append(5000, static_cast<char>('a' + values.size() % 26));
  return text;
}

inline std::vector<history::Value> decode_values(std::string_view text) {
  std::uint64_t count = 0;
  if (text.size() < sizeof count) return {};
  std::memcpy(&count, text.data(), sizeof count);
  EXPECT_LE(sizeof count + count * sizeof(history::Value), text.size()) << "a damaged value";
  if (sizeof count + count * sizeof(history::Value) > text.size()) return {};
  std::vector<history::Value> values(count);
  std::memcpy(values.data(), text.data() + sizeof count, count * sizeof(history::Value));
  return values;
}

inline void expect_level(const history::History& recorded, history::Level level) {
  auto report = history::check(recorded);
  ASSERT_TRUE(report.has_value()) << report.error().to_string();
  EXPECT_TRUE(report->satisfies(level)) << report->to_string();
  EXPECT_TRUE(level != history::Level::kStrictSerializable || report->findings.empty()) << report->to_string();
}

}  // namespace kelda::testing
