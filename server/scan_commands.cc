// KEYS SCAN RANDOMKEY: walking a database.
#include <algorithm>

#include "server/client.h"
#include "server/glob.h"
#include "server/live_scan.h"
#include "server/text.h"

namespace kelda::server {

namespace {

// Keys that one transaction looks at before it lets the others on.
constexpr std::uint64_t kBatchKeys = 1000;

// Runs `body` in EXEC's transaction, or in one of its own.
Result<> in_transaction(Call& call, FunctionRef<Result<>()> body) {
  if (call.keys.in_transaction()) return body();
  return with_retries(call.server, [&]() -> Result<> {
    call.keys.begin();
    auto result = body();
    if (!result) {
      call.keys.roll_back();
      return result;
    }
    return call.keys.commit();
  });
}

// An iteration over everything that may match a pattern.
struct Walk {
  explicit Walk(std::string_view match)
      : pattern(match, kMaxKeyBytes), finished(pattern.impossible()) {
    if (finished) return;
    resume = pattern.literal_prefix();
    end = after_prefix(resume);
  }

  GlobPattern pattern;
  std::string resume;  // the next key to look at; the one after it if `after`
  bool after = false;
  std::optional<std::string> end;  // at or after this nothing matches
  bool finished;
  std::uint64_t visited = 0;
};

// Looks at up to `limit` keys from walk.resume on, fewer when the client's turn ends before; replies those that match
// and returns how many. No lock is held when it returns, but in EXEC.
Result<std::size_t> walk_some(Call& call, Walk& walk, std::uint64_t limit, bool strings_wanted = true) {
  std::size_t matched = 0;
  std::uint64_t visited = 0;
  std::string last;  // the last key that was looked at
  bool finished = false;
  const std::size_t mark = call.reply.mark();
  TRY(in_transaction(call, [&]() -> Result<> {
    matched = 0;
    finished = false;
    call.reply.cut(mark);
    auto scan = TRY(LiveScan::open(call));
    bool found = TRY(scan.seek(walk.resume, walk.after));
    while (found && !(walk.end && scan.key() >= *walk.end)) {
      if (strings_wanted && walk.pattern.matches(scan.key())) {
        call.reply.bulk(scan.key());
        ++matched;
        if (call.reply.overflowed()) break;
      }
      visited = scan.visited();
      if (visited >= limit || call.client.turn_is_over()) {
        last = scan.key();
        return {};
      }
      found = TRY(scan.next());
    }
    finished = true;
    return {};
  }));
  walk.finished = finished;
  walk.visited += visited;
  if (finished) return matched;
  walk.resume = std::move(last);
  walk.after = true;
  return matched;
}

// Not a snapshot, except in EXEC: a key that is there from start to end is returned, and no key twice.
Result<> keys(Call& call) {
  const std::size_t mark = call.reply.mark();
  Walk walk(call.arg(1));
  std::size_t matched = 0;
  while (!walk.finished) {
    matched += TRY(walk_some(call, walk, kBatchKeys));
    if (!walk.finished) TRY(call.client.end_turn());
  }
  call.reply.insert_array_header(mark, matched);
  return {};
}

struct ScanOptions {
  std::string_view pattern = "*";
  std::uint64_t count = 10;
  bool strings_wanted = true;
};

Result<bool> parse_scan_options(Call& call, ScanOptions& options) {
  for (std::size_t i = 2; i < call.count(); i += 2) {
    TRY(call.give_way());
    if (i + 1 >= call.count()) {
      TRY(call.syntax_error());
      return false;
    }
    if (call.is(i, "match")) {
      options.pattern = call.arg(i + 1);
    } else if (call.is(i, "count")) {
      const auto count = parse_integer(call.arg(i + 1));
      if (!count) {
        TRY(call.not_an_integer());
        return false;
      }
      if (*count < 1) {
        TRY(call.syntax_error());
        return false;
      }
      options.count = static_cast<std::uint64_t>(*count);
    } else if (call.is(i, "type")) {
      options.strings_wanted = call.is(i + 1, "string");
    } else {
      TRY(call.syntax_error());
      return false;
    }
  }
  return true;
}

Result<> scan(Call& call) {
  // Nothing is 0, as for Redis.
  const auto cursor = call.arg(1).empty() ? 0 : parse_unsigned(call.arg(1));
  if (!cursor) return call.fail("ERR invalid cursor");
  ScanOptions options;
  if (!TRY(parse_scan_options(call, options))) return {};
  Walk walk(options.pattern);
  if (*cursor != 0) {
    auto position = call.server.cursors.find(*cursor);
    if (!position) return call.fail("ERR the cursor is unknown or too old: start the iteration again with cursor 0");
    walk.resume = *std::move(position);
    walk.after = true;
  }
  const std::size_t mark = call.reply.mark();
  std::size_t matched = 0;
  // In steps, so that a huge COUNT does not keep writers out for long.
  while (!walk.finished && walk.visited < options.count) {
    matched += TRY(walk_some(call, walk, std::min(options.count - walk.visited, kBatchKeys), options.strings_wanted));
    if (!walk.finished && walk.visited < options.count) TRY(call.client.end_turn());
  }
  call.reply.insert_array_header(mark, matched);
  const std::string next = walk.finished ? "0" : std::to_string(call.server.cursors.add(walk.resume, *cursor));
  call.reply.insert_pair_header(mark, next);
  return {};
}

// A text between two keys, or somewhat beyond: their common start, then random bytes from between where they part.
std::string random_text_between(std::string_view first, std::string_view last) {
  const std::size_t shorter = std::min(first.size(), last.size());
  std::size_t common = 0;
  while (common < shorter && first[common] == last[common]) ++common;
  std::string text(first.substr(0, common));
  const unsigned low = common < first.size() ? static_cast<unsigned char>(first[common]) : 0;
  const unsigned high = common < last.size() ? static_cast<unsigned char>(last[common]) : 0;
  text.push_back(static_cast<char>(low + runtime::random_u64() % (high - low + 1)));
  for (int i = 0; i < 6; ++i) {
    // From the bytes that the two keys show at this place: keys of digits are sought by digits.
    const std::size_t at = text.size();
    unsigned char a = at < first.size() ? static_cast<unsigned char>(first[at]) : 0;
    unsigned char b = at < last.size() ? static_cast<unsigned char>(last[at]) : 255;
    if (a > b) std::swap(a, b);
    text.push_back(static_cast<char>(a + runtime::random_u64() % (b - a + 1u)));
  }
  return text;
}

// An ordered tree has no uniform choice among its keys without counting them: this picks a random text between the
// first and the last key and then one of the few keys after it. Every key can come, not all equally often.
Result<> randomkey(Call& call) {
  constexpr std::uint64_t kSteps = 16;
  auto scan = TRY(LiveScan::open(call));
  if (!TRY(scan.seek_back(std::nullopt))) {
    call.reply.null();
    return {};
  }
  const std::string last(scan.key());
  TRY(scan.seek(""));
  const std::string first(scan.key());
  bool found = TRY(scan.seek(random_text_between(first, last)));
  for (std::uint64_t steps = runtime::random_u64() % kSteps; steps > 0 || !found; --steps) {
    found = TRY(found ? scan.next() : scan.seek(""));  // around the end
    if (steps == 0) break;
  }
  call.reply.bulk(scan.key());
  return {};
}

constexpr Command kCommands[] = {
    {"keys", 2, kReadonly | kWholeTree, 0, 0, 0, keys, "generic", "1.0.0", "The keys that match a pattern", "pattern"},
    {"scan", -2, kReadonly | kWholeTree, 0, 0, 0, scan, "generic", "2.8.0",
     "Some of the keys, and a cursor with which to go on", "cursor [MATCH pattern] [COUNT count] [TYPE type]"},
    {"randomkey", 1, kReadonly | kTransaction | kWholeTree, 0, 0, 0, randomkey, "generic", "1.0.0", "Some key", ""},
};

}  // namespace

std::span<const Command> scan_commands() {
  return kCommands;
}

}  // namespace kelda::server
