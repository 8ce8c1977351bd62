// The request parser: whole requests, any split of them, and whatever is not a request.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "server/glob.h"
#include "server/request_parser.h"
#include "server/text.h"

namespace kelda::server {
namespace {

void feed(InputBuffer& in, std::string_view bytes) {
  while (!bytes.empty()) {
    const MutableBytes room = in.room();
    const std::size_t count = std::min(room.size(), bytes.size());
    std::memcpy(room.data(), bytes.data(), count);
    in.filled(count);
    bytes.remove_prefix(count);
  }
}

using Words = std::vector<std::string>;
using Outcome = RequestParser::Outcome;

struct Parsed {
  std::vector<Words> requests;
  std::string error;
};

Parsed parse(std::string_view bytes, std::size_t chunk, ParserLimits limits = {}) {
  InputBuffer in;
  RequestParser parser;
  Parsed parsed;
  for (std::size_t i = 0; i < bytes.size(); i += chunk) {
    feed(in, bytes.substr(i, chunk));
    while (true) {
      const Outcome outcome = parser.next(in, limits);
      if (outcome == Outcome::kNeedMore) break;
      if (outcome == Outcome::kPaused) continue;
      if (outcome == Outcome::kError) {
        parsed.error = parser.error();
        return parsed;
      }
      parsed.requests.emplace_back(parser.arguments().begin(), parser.arguments().end());
    }
  }
  return parsed;
}

TEST(RequestParser, ReadsTheSameWhateverTheSplit) {
  const std::string bytes =
      "*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
      "PING\r\n"
      "*-1\r\n*0\r\n\r\n"
      "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$12\r\nline\r\nbreak!\r\n"
      "set 'a b' \"\\x00c\"\n";
  const std::vector<Words> expected = {
      {"GET", "a"}, {"PING"}, {"SET", "", "line\r\nbreak!"}, {"set", "a b", std::string("\0c", 2)}};
  for (std::size_t chunk = 1; chunk <= bytes.size(); ++chunk) {
    const Parsed parsed = parse(bytes, chunk);
    EXPECT_EQ(parsed.requests, expected) << "in pieces of " << chunk;
    EXPECT_EQ(parsed.error, "");
    EXPECT_EQ(parse(bytes, chunk, {.arguments_a_call = 1}).requests, expected) << "in pieces of " << chunk;
  }
}

TEST(RequestParser, StopsAmidManyArgumentsWhenAskedTo) {
  constexpr int kArguments = 1000;
  std::string bytes = "*" + std::to_string(kArguments) + "\r\n";
  for (int i = 0; i < kArguments; ++i) bytes += "$1\r\nx\r\n";
  InputBuffer in;
  feed(in, bytes);
  RequestParser parser;
  int pauses = 0;
  while (parser.next(in, {.arguments_a_call = 100}) == Outcome::kPaused) {
    EXPECT_TRUE(parser.in_request());
    ++pauses;
  }
  EXPECT_GE(pauses, 2 * kArguments / 100 - 2);
  EXPECT_EQ(parser.arguments().size(), static_cast<std::size_t>(kArguments));
  EXPECT_FALSE(parser.in_request());
}

TEST(RequestParser, NamesWhatIsNoRequest) {
  const std::pair<std::string, std::string> cases[] = {
      {"*abc\r\n", "Protocol error: invalid multibulk length"},
      {"*1048577\r\n", "Protocol error: invalid multibulk length"},
      {"*1\r\n:5\r\n", "Protocol error: expected '$', got ':'"},
      {"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"},
      {"*2\r\n$3\r\nGET\r\n$10737418240\r\n", "Protocol error: invalid bulk length"},
      {"ECHO \"abc\r\n", "Protocol error: unbalanced quotes in request"},
      {std::string(70000, 'x'), "Protocol error: too big inline request"},
      {"*" + std::string(70000, '1'), "Protocol error: too big mbulk count string"},
      {"*1\r\n$" + std::string(70000, '1'), "Protocol error: too big bulk count string"},
  };
  for (const auto& [bytes, error] : cases) EXPECT_EQ(parse(bytes, bytes.size()).error, error);
}

TEST(RequestParser, SaysLittleToStrangers) {
  const ParserLimits strangers{.unauthenticated = true};
  EXPECT_EQ(parse("*11\r\n", 100, strangers).error, "Protocol error: unauthenticated multibulk length");
  EXPECT_EQ(parse("*2\r\n$4\r\nAUTH\r\n$16385\r\n", 100, strangers).error,
            "Protocol error: unauthenticated bulk length");
}

TEST(RequestParser, ThrowsAwayWhatIsTooLargeAndGoesOn) {
  const std::string big(2_MiB, 'v');
  const std::string bytes =
      "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$" + std::to_string(big.size()) + "\r\n" + big + "\r\nPING\r\n";
  InputBuffer in;
  RequestParser parser;
  std::size_t largest = 0;
  int refused = 0, pings = 0;
  for (std::size_t i = 0; i < bytes.size(); i += 10'000) {
    feed(in, std::string_view(bytes).substr(i, 10'000));
    Outcome outcome;
    while ((outcome = parser.next(in, {})) == Outcome::kRequest) {
      if (const auto* refusal = parser.refusal()) {
        ++refused;
        EXPECT_EQ(refusal->argument, 2u);
        EXPECT_EQ(refusal->bytes, big.size());
        EXPECT_FALSE(refusal->request_too_large);
      } else {
        ASSERT_EQ(parser.arguments().size(), 1u);
        EXPECT_EQ(parser.arguments()[0], "PING");
        ++pings;
      }
    }
    ASSERT_EQ(outcome, Outcome::kNeedMore);
    largest = std::max(largest, in.capacity());
  }
  EXPECT_EQ(refused, 1);
  EXPECT_EQ(pings, 1);
  EXPECT_LE(largest, 128_KiB);  // the value was never kept
}

TEST(RequestParser, BoundsAWholeRequest) {
  const ParserLimits limits{.max_request_bytes = 100'000};
  std::string bytes = "*1000\r\n";
  for (int i = 0; i < 1000; ++i) bytes += "$1000\r\n" + std::string(1000, 'x') + "\r\n";
  bytes += "PING\r\n";
  InputBuffer in;
  RequestParser parser;
  std::size_t largest = 0;
  std::vector<bool> refused;
  for (std::size_t i = 0; i < bytes.size(); i += 4096) {
    feed(in, std::string_view(bytes).substr(i, 4096));
    while (parser.next(in, limits) == Outcome::kRequest) {
      refused.push_back(parser.refusal() != nullptr && parser.refusal()->request_too_large);
    }
    largest = std::max(largest, in.capacity());
  }
  EXPECT_EQ(refused, (std::vector<bool>{true, false}));
  EXPECT_LE(largest, 300'000u);
}

TEST(RequestParser, CountsWhatArgumentsTakeBesideTheirBytes) {
  const ParserLimits limits{.max_request_bytes = 100'000};
  InputBuffer in;
  RequestParser parser;
  feed(in, "*1000000\r\n");
  for (int i = 0; i < 100; ++i) {
    std::string empty;
    for (int k = 0; k < 10'000; ++k) empty += "$0\r\n\r\n";
    ASSERT_EQ(parser.next(in, limits), Outcome::kNeedMore);
    ASSERT_LE(in.capacity() + parser.memory_bytes(), 500'000u) << i;
    feed(in, empty);
  }
  ASSERT_EQ(parser.next(in, limits), Outcome::kRequest);
  ASSERT_NE(parser.refusal(), nullptr);
  EXPECT_TRUE(parser.refusal()->request_too_large);
}

// Whether a line is too long is the same for one that comes at once and one that comes byte by byte.
TEST(RequestParser, LongLinesAreRefusedWhateverTheSplit) {
  for (const std::string start : {"GET ", "*", "*1\r\n$"}) {
    for (const std::size_t bytes : {65'530, 65'535, 65'536, 65'537, 70'000}) {
      const std::string text = start + std::string(bytes - start.size(), '1') + "\r\nPING\r\n";
      std::vector<std::string> heard;
      for (const std::size_t piece : {text.size(), std::size_t{1}, std::size_t{4096}}) {
        InputBuffer in;
        RequestParser parser;
        Outcome outcome = Outcome::kNeedMore;
        for (std::size_t i = 0; i < text.size() && outcome == Outcome::kNeedMore; i += piece) {
          feed(in, std::string_view(text).substr(i, piece));
          outcome = parser.next(in, {});
        }
        heard.push_back(outcome == Outcome::kError ? parser.error() : "request");
      }
      EXPECT_EQ(heard[0], heard[1]) << start << bytes;
      EXPECT_EQ(heard[0], heard[2]) << start << bytes;
    }
  }
}

TEST(InputBuffer, GrowsWithWhatHasComeNotWithWhatWasAnnounced) {
  InputBuffer in;
  RequestParser parser;
  feed(in, "*2\r\n$4\r\nECHO\r\n$1000000\r\nxxx");
  ASSERT_EQ(parser.next(in, {}), Outcome::kNeedMore);
  EXPECT_GE(parser.needed_bytes(), 1'000'000u);
  EXPECT_FALSE(in.room(parser.needed_bytes()).empty());
  EXPECT_LE(in.capacity(), 128_KiB);
}

TEST(InputBuffer, IsSmallForAnIdleClient) {
  InputBuffer in;
  RequestParser parser;
  feed(in, "*2\r\n$4\r\nECHO\r\n$100000\r\n" + std::string(100'000, 'x') + "\r\n");
  EXPECT_EQ(parser.next(in, {}), Outcome::kRequest);
  EXPECT_EQ(parser.next(in, {}), Outcome::kNeedMore);
  in.room();
  in.filled(1);
  in.consume(1);
  in.shrink();
  EXPECT_EQ(in.capacity(), InputBuffer::kSmallBytes);
}

TEST(Text, ReadsIntegersAsRedisPrintsThem) {
  EXPECT_EQ(parse_integer("0"), 0);
  EXPECT_EQ(parse_integer("-9223372036854775808"), INT64_MIN);
  EXPECT_EQ(parse_integer("9223372036854775807"), INT64_MAX);
  for (const char* bad :
       {"", "-", "+1", "01", "-0", " 1", "1 ", "1x", "9223372036854775808", "-9223372036854775809", "0x1"}) {
    EXPECT_EQ(parse_integer(bad), std::nullopt) << bad;
  }
}

TEST(Text, MatchesGlobs) {
  EXPECT_TRUE(glob_match("*", ""));
  EXPECT_TRUE(glob_match("a*b*c", "aXXbYYbZc"));
  EXPECT_FALSE(glob_match("a*b*c", "aXXbYYbZd"));
  EXPECT_TRUE(glob_match("h[a-c]\\*", "hb*"));
  EXPECT_FALSE(glob_match("h[^a-c]?", "hbx"));
  EXPECT_TRUE(glob_match("ABC*", "abcdef", true));
  // Backtracking over many stars must not take exponential time.
  EXPECT_FALSE(glob_match("*a*a*a*a*a*a*a*a*a*a*a*a*b", std::string(2000, 'a')));
  EXPECT_EQ(GlobPattern("user:\\*[x]*", 100).literal_prefix(), "user:*");
  EXPECT_TRUE(GlobPattern("????", 3).impossible());
  EXPECT_FALSE(GlobPattern("*???*", 3).impossible());
  EXPECT_EQ(after_prefix("ab\xff"), "ac");
  EXPECT_EQ(after_prefix("\xff\xff"), std::nullopt);
}

TEST(Text, PrintsDecimals) {
  EXPECT_EQ(format_long_double(0.1L + 0.2L), "0.3");
  EXPECT_EQ(format_long_double(3.0e3L), "3000");
  EXPECT_EQ(format_long_double(-0.0L), "0");
}

}  // namespace
}  // namespace kelda::server
