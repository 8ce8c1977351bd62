#include "sim/register.h"

#include <algorithm>
#include <charconv>

#include "common/assert.h"
#include "common/prng.h"

namespace kelda::sim {

Register::Register(std::uint32_t owner, std::uint32_t number, std::uint32_t key_count)
    : owner_(owner), number_(number), versions_(1) {
  for (std::uint32_t i = 0; i < key_count; ++i) keys_.push_back(fmt::format("r:{}:{}:{}", owner, number, i));
  stable_.assign(key_count, 0);
}

std::string Register::value(std::size_t version) const {
  std::string text = fmt::format("{}.{}.{}:", owner_, number_, version);
  const std::size_t bytes = std::max<std::size_t>(versions_[version].bytes, text.size());
  text.reserve(bytes + 8);
  Prng filler(owner_ * 1'000'003ull + number_ * 101ull + version);
  while (text.size() < bytes) {
    const std::uint64_t word = filler.next();
    text.append(reinterpret_cast<const char*>(&word), sizeof word);
  }
  text.resize(bytes);
  return text;
}

void Register::invoke(Version version) {
  KELDA_ASSERT(!in_doubt_);
  version.invoked_ns = runtime::now_ns();
  version.invoked_wall_ms = WallClock::now_ms();
  versions_.push_back(version);
}

void Register::acknowledge(Trace& trace) {
  if (!half_seen_.empty()) trace.fail("half visible", half_seen_);
  half_seen_.clear();
  versions_.back().acknowledged_ns = runtime::now_ns();
  std::ranges::fill(stable_, latest_number());
  in_doubt_ = false;
}

void Register::acknowledge_in_part(const std::vector<bool>& done) {
  versions_.back().acknowledged_ns = runtime::now_ns();
  versions_.back().partial = true;
  half_seen_.clear();
  for (std::size_t i = 0; i < keys_.size(); ++i) {
    if (done[i]) stable_[i] = latest_number();
  }
  in_doubt_ = false;
}

Register::Mark Register::mark() const {
  return {stable_, runtime::now_ns(), WallClock::now_ms()};
}

bool Register::matches(std::size_t number, const Reply& found, WallClock::Range since_write,
                       WallClock::Range during_read) const {
  const Version& version = versions_[number];
  if (found.null)
    return !version.present || (version.expires_at_ms != 0 && since_write.high_ms >= version.expires_at_ms);
  if (!version.present || found.text.size() != std::max<std::size_t>(version.bytes, found.text.find(':') + 1))
    return false;
  if (version.expires_at_ms != 0 && during_read.low_ms >= version.expires_at_ms) return false;
  return found.text == value(number);
}

void Register::judge(const Mark& mark, std::span<const Reply> found, bool settled, bool forgiving,
                     const WallClock& wall, Trace& trace) {
  const std::size_t newest = latest_number();
  std::size_t low = forgiving ? 0 : *std::ranges::min_element(mark.low);
  const WallClock::Range during = wall.since(mark.at_ns, mark.wall_ms);
  bool partial = forgiving, stable_matches = false, newest_matches = false, whole = false;
  std::vector<bool> seen(keys_.size(), false);
  for (std::size_t v = low; v <= newest; ++v) {
    if (versions_[v].failed) continue;
    partial |= versions_[v].partial;
    const WallClock::Range since_write = wall.since(versions_[v].invoked_ns, versions_[v].invoked_wall_ms);
    bool all = true;
    for (std::size_t k = 0; k < keys_.size(); ++k) {
      const bool one = (forgiving || v >= mark.low[k]) && matches(v, found[k], since_write, during);
      if (one) seen[k] = true;
      all &= one;
    }
    whole |= all;
    if (all && v == newest) newest_matches = true;
    if (all && v < newest) stable_matches = true;
  }
  const bool each = std::ranges::all_of(seen, [](bool s) { return s; });
  if (!each) {
    if (!forgiving || !std::ranges::all_of(found, [](const Reply& r) { return r.null; })) {
      trace.fail(forgiving ? "invented value" : "wrong value", describe_failure(mark, found));
    }
    return;
  }
  if (!whole && !partial) {
    const bool under_way = !in_doubt_ && versions_[newest].acknowledged_ns == 0;
    if (under_way && versions_[newest].may_be_partial) {
      half_seen_ = describe_failure(mark, found);
    } else {
      trace.fail("half visible", describe_failure(mark, found));
    }
  }
  if (!settled || !in_doubt_ || forgiving) {
    if (settled && forgiving) in_doubt_ = false;
    return;
  }
  in_doubt_ = false;
  if (!whole) return;                            // each key is one or the other, and remains either
  if (stable_matches == newest_matches) return;  // both remain possible
  if (newest_matches) {
    std::ranges::fill(stable_, newest);
  } else {
    versions_.back().failed = true;
  }
}

std::string Register::describe(std::size_t number) const {
  const Version& v = versions_[number];
  std::string text = fmt::format("version {} ({}", number,
                                 number == 0 ? "never written"
                                 : v.present ? fmt::format("{} bytes", v.bytes)
                                             : "removed");
  if (v.expires_at_ms != 0) text += fmt::format(", expires at {} ms", v.expires_at_ms);
  if (number > 0) text += fmt::format(", sent at {:.6f}", static_cast<double>(v.invoked_ns) / 1e9);
  if (v.acknowledged_ns != 0)
    text += fmt::format(", acknowledged at {:.6f}", static_cast<double>(v.acknowledged_ns) / 1e9);
  if (v.failed) text += ", refused or found not done";
  return text + ")";
}

std::string Register::describe_failure(const Mark& mark, std::span<const Reply> found) const {
  std::string text = "keys";
  for (const std::string& key : keys_) text += " " + key;
  const std::size_t low = *std::ranges::min_element(mark.low);
  text += "\n  expected: " + describe(low);
  for (std::size_t v = low + 1; v < versions_.size() && v < low + 6; ++v) {
    if (!versions_[v].failed) text += "\n        or: " + describe(v);
  }
  text += "\n  found:    ";
  for (const Reply& reply : found) {
    const std::size_t colon = reply.text.find(':');
    text += reply.null ? "nil; "
                       : fmt::format("{} bytes that say {}; ", reply.text.size(),
                                     colon < 40 ? reply.text.substr(0, colon) : "nothing sensible");
  }
  std::size_t last = versions_.size();
  while (last > 0 && versions_[last - 1].acknowledged_ns == 0) --last;
  text += "\n  last acknowledged: " + (last == 0 ? std::string("none") : describe(last - 1));
  text += fmt::format("\n  read from {:.6f}", static_cast<double>(mark.at_ns) / 1e9);
  return text;
}

}  // namespace kelda::sim
