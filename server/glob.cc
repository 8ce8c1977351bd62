#include "server/glob.h"

#include <algorithm>
#include <bitset>
#include <utility>

namespace kelda::server {

namespace {

constexpr unsigned char fold(char c, bool ignore_case) {
  const auto byte = static_cast<unsigned char>(c);
  return ignore_case && byte >= 'A' && byte <= 'Z' ? static_cast<unsigned char>(byte + 32) : byte;
}

}  // namespace

// Reading adds to it in constant time a piece; contains() then tells for each byte.
struct GlobPattern::CharacterSet {
  explicit CharacterSet(bool ignores_case) : ignore_case(ignores_case) {}

  const bool ignore_case;
  bool negated = false;
  std::bitset<256> folded, exact;  // of letters whose case does not count, and of bytes as they are

  bool contains(char c) const {
    return (folded[fold(c, ignore_case)] || exact[static_cast<unsigned char>(c)]) != negated;
  }

  void add(char c) { folded.set(fold(c, ignore_case)); }

  void add_range(char first, char last) {
    unsigned low = fold(first, ignore_case), high = fold(last, ignore_case);
    if (low > high) std::swap(low, high);
    folded |= std::bitset<256>().set() >> (255 - (high - low)) << low;
  }

  // The class whose opening bracket is at pattern[at - 1]; moves `at` past it. One without an end ends with the pattern.
  void read_class(std::string_view pattern, std::size_t& at) {
    negated = at < pattern.size() && pattern[at] == '^';
    if (negated) ++at;
    while (at < pattern.size() && pattern[at] != ']') {
      if (pattern[at] == '\\' && at + 1 < pattern.size()) {
        exact.set(static_cast<unsigned char>(pattern[at + 1]));  // the letter's case counts, as in Redis
        at += 2;
      } else if (at + 2 < pattern.size() && pattern[at + 1] == '-') {
        add_range(pattern[at], pattern[at + 2]);
        at += 3;
      } else {
        add(pattern[at++]);
      }
    }
    if (at < pattern.size()) ++at;
  }
};

GlobPattern::GlobPattern(std::string_view pattern, std::size_t longest_text_bytes, bool ignore_case) {
  // States are one more than elements.
  capacity_words_ = std::min(pattern.size(), longest_text_bytes) / kWordBits + 1;
  takes_.assign(256 * capacity_words_, 0);
  stays_.assign(capacity_words_, 0);
  bool literal = true;
  for (std::size_t at = 0; at < pattern.size();) {
    const char p = pattern[at++];
    if (p == '*') {
      stays_[elements_ / kWordBits] |= Word{1} << elements_ % kWordBits;
      literal = false;
      continue;
    }
    if (elements_ == longest_text_bytes) {
      impossible_ = true;
      break;
    }
    CharacterSet set(ignore_case);
    if (p == '?') {
      set.folded.set();
    } else if (p == '[') {
      set.read_class(pattern, at);
    } else {
      const char c = p == '\\' && at < pattern.size() ? pattern[at++] : p;
      set.add(c);
      if (literal) prefix_.push_back(c);
    }
    literal = literal && p != '?' && p != '[';
    add_element(set);
  }
  words_ = elements_ / kWordBits + 1;
  states_.resize(words_);
}

void GlobPattern::add_element(const CharacterSet& set) {
  ++elements_;
  const Word bit = Word{1} << elements_ % kWordBits;
  Word* column = takes_.data() + elements_ / kWordBits;
  for (std::size_t c = 0; c < 256; ++c) {
    if (set.contains(static_cast<char>(c))) column[c * capacity_words_] |= bit;
  }
}

bool GlobPattern::matches(std::string_view text) {
  if (impossible_) return false;
  std::ranges::fill(states_, 0);
  states_[0] = 1;
  const std::size_t last = elements_ / kWordBits;
  const Word end = Word{1} << elements_ % kWordBits;
  const bool open_end = (stays_[last] & end) != 0;
  for (const char c : text) {
    const Word* takes = takes_.data() + static_cast<unsigned char>(c) * capacity_words_;
    Word any = 0;
    for (std::size_t i = words_; i-- > 0;) {
      const Word carried = i > 0 ? states_[i - 1] >> (kWordBits - 1) : 0;
      states_[i] = ((states_[i] << 1 | carried) & takes[i]) | (states_[i] & stays_[i]);
      any |= states_[i];
    }
    if (any == 0) return false;
    if (open_end && (states_[last] & end) != 0) return true;
  }
  return (states_[last] & end) != 0;
}

bool glob_match(std::string_view pattern, std::string_view text, bool ignore_case) {
  return GlobPattern(pattern, text.size(), ignore_case).matches(text);
}

std::optional<std::string> after_prefix(std::string_view prefix) {
  std::string result(prefix);
  while (!result.empty() && result.back() == '\xff') result.pop_back();
  if (result.empty()) return std::nullopt;
  result.back() = static_cast<char>(static_cast<unsigned char>(result.back()) + 1);
  return result;
}

}  // namespace kelda::server
