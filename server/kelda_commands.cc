// KELDA.RANGE KELDA.CHECKPOINT KELDA.SCRUB: what Redis does not have.
#include <optional>

#include "server/client.h"
#include "server/info.h"
#include "server/live_scan.h"
#include "server/text.h"

namespace kelda::server {

namespace {

// One end of a range: "-" and "+" are before and after everything, "(key" excludes and "[key" includes the key; any
// other text is a key, included. As in ZRANGE BYLEX, but for the last.
struct Bound {
  bool lowest = false, highest = false, exclusive = false;
  std::string_view key = {};

  static Bound parse(std::string_view text) {
    if (text == "-") return {.lowest = true};
    if (text == "+") return {.highest = true};
    if (text.starts_with('(')) return {.exclusive = true, .key = text.substr(1)};
    if (text.starts_with('[')) return {.key = text.substr(1)};
    return {.key = text};
  }

  // Is `at` within, for this as the lower (upper) end?
  bool admits_above(std::string_view at) const {
    if (lowest || highest) return lowest;
    return exclusive ? at > key : at >= key;
  }
  bool admits_below(std::string_view at) const {
    if (lowest || highest) return highest;
    return exclusive ? at < key : at <= key;
  }
};

struct RangeOptions {
  Bound start, end;
  std::uint64_t limit = UINT64_MAX;
  bool reverse = false;
};

Result<bool> parse_range(Call& call, RangeOptions& options) {
  options.start = Bound::parse(call.arg(1));
  options.end = Bound::parse(call.arg(2));
  for (std::size_t i = 3; i < call.count(); ++i) {
    TRY(call.give_way());
    if (call.is(i, "rev")) {
      options.reverse = true;
    } else if (call.is(i, "limit") && i + 1 < call.count()) {
      const auto limit = parse_integer(call.arg(++i));
      if (!limit || *limit < 0) {
        TRY(call.fail("ERR LIMIT is not a number from 0 up"));
        return false;
      }
      options.limit = static_cast<std::uint64_t>(*limit);
    } else {
      TRY(call.syntax_error());
      return false;
    }
  }
  return true;
}

Result<bool> seek_start(LiveScan& scan, const RangeOptions& options) {
  const Bound& start = options.start;
  if (!options.reverse) {
    if (start.highest) return false;
    return scan.seek(start.lowest ? std::string_view() : start.key, start.exclusive);
  }
  if (start.lowest) return false;
  if (start.highest) return scan.seek_back(std::nullopt);
  return scan.seek_back(start.key, start.exclusive);
}

// Keys and values of a range in order, in one transaction: nothing in it changes meanwhile. With REV from the upper end
// (the first bound) down, as in ZRANGE.
Result<> range(Call& call) {
  RangeOptions options;
  if (!TRY(parse_range(call, options))) return {};
  Reply& reply = call.reply;
  const std::size_t mark = reply.mark();
  std::uint64_t pairs = 0;
  auto scan = TRY(LiveScan::open(call));
  bool found = options.limit > 0 && TRY(seek_start(scan, options));
  while (found && pairs < options.limit && !reply.overflowed()) {
    if (options.reverse ? !options.end.admits_above(scan.key()) : !options.end.admits_below(scan.key())) break;
    if (reply.resp3()) reply.array(2);
    reply.bulk(scan.key());
    reply.bulk(TRY(scan.value()));
    ++pairs;
    TRY(call.give_way());
    if (pairs < options.limit) found = TRY(options.reverse ? scan.prev() : scan.next());
  }
  reply.insert_array_header(mark, reply.resp3() ? pairs : pairs * 2);
  return {};
}

Result<> checkpoint(Call& call) {
  TRY(call.server.checkpoint());
  call.reply.ok();
  return {};
}

// START, STOP, STATUS: the fields of INFO's section "scrub", as a map.
Result<> scrub(Call& call) {
  Database& database = call.server.database;
  if (call.is(1, "start")) {
    const auto started = database.start_scrub();
    if (!started) return call.fail("ERR " + started.error().message());
    call.reply.ok();
    return {};
  }
  if (call.is(1, "stop")) {
    database.stop_scrub();
    call.reply.ok();
    return {};
  }
  if (!call.is(1, "status")) return call.syntax_error();
  const auto fields = scrub_fields(database.scrub_status());
  call.reply.map(fields.size());
  for (const auto& [name, value] : fields) {
    call.reply.bulk(name);
    call.reply.bulk(value);
  }
  return {};
}

constexpr Command kCommands[] = {
    {"kelda.range", -3, kReadonly | kTransaction | kWholeTree, 0, 0, 0, range, "kelda", "0.1.0",
     "Return keys and values of a range of keys, in order", "start end [LIMIT count] [REV]"},
    {"kelda.checkpoint", 1, kAdmin | kNoMulti, 0, 0, 0, checkpoint, "kelda", "0.1.0",
     "Write all changed pages to the disk, so that the next start has nothing to recover", ""},
    {"kelda.scrub", 2, kAdmin | kNoMulti, 0, 0, 0, scrub, "kelda", "0.1.0",
     "Verify the whole disk in the background: start it, stop it, or see how it stands", "START|STOP|STATUS"},
};

}  // namespace

std::span<const Command> kelda_commands() {
  return kCommands;
}

}  // namespace kelda::server
