// Redis's glob patterns: * ? [abc] [^a-z] and \ to quote.
//
// Contract: a pattern is read once, in time and memory bounded by its own length and by the longest text it will meet.
// A match then looks at each character of the text once and at each 64 elements of the pattern a step, whatever the
// pattern is: there is no backtracking. An object is used by one fiber at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kelda::server {

class GlobPattern {
 public:
  // `longest_text_bytes` bounds the texts given to matches(): a pattern that needs more characters matches none of them.
  explicit GlobPattern(std::string_view pattern, std::size_t longest_text_bytes, bool ignore_case = false);

  bool matches(std::string_view text);
  // No text within the bound matches.
  bool impossible() const { return impossible_; }
  // The literal text that everything matching the pattern starts with.
  const std::string& literal_prefix() const { return prefix_; }

 private:
  using Word = std::uint64_t;
  static constexpr std::size_t kWordBits = 64;
  struct CharacterSet;

  void add_element(const CharacterSet& set);

  // The pattern is a row of elements that take one character each. State i: the first i elements have been matched.
  // Bit i of `takes_[c * words_ + ...]`: state i is reached from i - 1 by the character c.
  // Bit i of `stays_`: a star stands behind the first i elements, so state i is kept by any character.
  std::size_t elements_ = 0, words_ = 1, capacity_words_ = 0;
  std::vector<Word> takes_, stays_, states_;
  std::string prefix_;
  bool impossible_ = false;
};

// One match of a pattern that is used once.
bool glob_match(std::string_view pattern, std::string_view text, bool ignore_case = false);

// The smallest text above everything that starts with `prefix`; nothing when there is none (all 0xff or empty).
std::optional<std::string> after_prefix(std::string_view prefix);

}  // namespace kelda::server
