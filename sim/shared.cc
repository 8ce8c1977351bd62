#include "sim/shared.h"

#include <algorithm>
#include <charconv>

namespace kelda::sim {

namespace {

// A missing number counts as 0; nothing if it is no number.
bool number_of(const Reply& reply, std::int64_t& number) {
  number = 0;
  if (reply.null) return true;
  const auto [stop, error] = std::from_chars(reply.text.data(), reply.text.data() + reply.text.size(), number);
  return error == std::errc() && stop == reply.text.data() + reply.text.size();
}

}  // namespace

std::string Counter::bounds() const {
  return fmt::format("{}: {} increments acknowledged, {} begun, highest result {}", key_, acknowledged_, begun_,
                     highest_);
}

void Counter::acknowledge(const Mark& begun, std::int64_t result, Trace& trace) {
  acknowledged_ += begun.epoch == epoch_ ? 1 : 0;
  highest_ = std::max(highest_, result);
  if (!given_out_.insert(result).second) {
    trace.fail("count twice",
               fmt::format("{}\n  expected: a result that nobody has got yet\n  found:    {} again", bounds(), result));
  } else if (result <= static_cast<std::int64_t>(begun.acknowledged) || result > static_cast<std::int64_t>(begun_)) {
    trace.fail("wrong count", fmt::format("{}\n  expected: a result between {} and {}\n  found:    {}", bounds(),
                                          begun.acknowledged + 1, begun_, result));
  }
}

void Counter::judge(const Mark& begun, const Reply& found, Trace& trace) {
  std::int64_t number;
  if (number_of(found, number) && number >= static_cast<std::int64_t>(begun.acknowledged) &&
      number <= static_cast<std::int64_t>(begun_))
    return;
  trace.fail("wrong count", fmt::format("{}\n  expected: between {} and {}\n  found:    {}", bounds(),
                                        begun.acknowledged, begun_, found.to_string()));
}

void Counter::settle(const Reply& found, Trace& trace) {
  judge({std::max<std::uint64_t>(acknowledged_, static_cast<std::uint64_t>(highest_)), epoch_}, found, trace);
  std::int64_t number;
  if (!number_of(found, number)) return;
  acknowledged_ = begun_ = static_cast<std::uint64_t>(number);
  ++epoch_;
}

std::string List::name(std::uint32_t generation) const {
  return fmt::format("list:{}:{}", number_, generation);
}

std::string List::new_token(std::uint32_t client) {
  std::string token = fmt::format("{:02}-{:08};", client % 100, next_token_++);
  begun_.insert(token);
  return token;
}

void List::acknowledge(const std::string& key, const std::string& token, std::int64_t length, Trace& trace) {
  History& history = histories_[key];
  const std::int64_t offset = length - static_cast<std::int64_t>(kTokenBytes);
  if (offset < 0 || offset % static_cast<std::int64_t>(kTokenBytes) != 0) {
    return trace.fail("wrong length", fmt::format("{}: APPEND of {} says {} bytes", key, token, length));
  }
  const auto [place, fresh] = history.acknowledged.emplace(offset, token);
  if (!fresh) {
    trace.fail("append overwritten",
               fmt::format("{}: {} and {} were both acknowledged at offset {}", key, place->second, token, offset));
  }
  if (static_cast<std::size_t>(length) >= kMaxBytes && key == key_) key_ = name(++generation_);
}

void List::judge(const std::string& key, std::size_t known_bytes, const Reply& found, Trace& trace) {
  History& history = histories_[key];
  const std::string& text = found.text;
  const std::size_t common = std::min(text.size(), history.longest.size());
  if (text.size() < known_bytes || text.compare(0, common, history.longest, 0, common) != 0) {
    trace.fail("list changed",
               fmt::format(
                   "{}\n  expected: at least the {} bytes that were shown before, as a beginning\n  found:    {} "
                   "bytes, ...{}\n"
                   "  shown before: {} bytes, ...{}",
                   key, known_bytes, text.size(), text.substr(text.size() - std::min<std::size_t>(text.size(), 48)),
                   history.longest.size(),
                   history.longest.substr(history.longest.size() - std::min<std::size_t>(history.longest.size(), 48))));
  }
  if (text.size() > history.longest.size()) history.longest = text;
}

void List::settle(const std::string& key, const Reply& found, Trace& trace) {
  judge(key, known_bytes(key), found, trace);
  const std::string& text = found.text;
  for (const auto& [offset, token] : histories_[key].acknowledged) {
    if (text.size() >= offset + kTokenBytes && text.compare(offset, kTokenBytes, token) == 0) continue;
    return trace.fail(
        "lost append",
        fmt::format("{}\n  expected: {} at offset {}, as acknowledged\n  found:    '{}' there, {} bytes in all", key,
                    token, offset, offset < text.size() ? text.substr(offset, kTokenBytes) : "", text.size()));
  }
  std::set<std::string> seen;
  for (std::size_t at = 0; at < text.size(); at += kTokenBytes) {
    const std::string token = text.substr(at, kTokenBytes);
    if (begun_.contains(token) && seen.insert(token).second) continue;
    return trace.fail(
        "invented append",
        fmt::format("{}\n  found:    '{}' at offset {}, which was never begun or is there twice", key, token, at));
  }
}

std::vector<std::string> List::keys() const {
  std::vector<std::string> all;
  for (std::uint32_t g = 0; g <= generation_; ++g) all.push_back(name(g));
  return all;
}

Bank::Bank(std::uint32_t accounts, bool halves) : halves_(halves) {
  for (std::uint32_t i = 0; i < accounts; ++i) keys_.push_back("account:" + std::to_string(i));
}

namespace {
bool sum_of(const Reply& found, std::int64_t& sum) {
  sum = 0;
  for (const Reply& item : found.items) {
    std::int64_t balance;
    if (!number_of(item, balance)) return false;
    sum += balance;
  }
  return true;
}
}  // namespace

std::uint64_t Bank::begin_transfer() {
  under_way_.insert(next_transfer_);
  return next_transfer_++;
}

void Bank::end_transfer(std::uint64_t transfer, Outcome outcome, Trace& trace) {
  under_way_.erase(transfer);
  if (outcome == Outcome::kHalf || (outcome == Outcome::kUnknown && halves_)) {
    known_ = false;
    suspects_.clear();
  } else if (suspects_.erase(transfer) != 0 && suspects_.empty()) {
    trace.fail("half a transfer", seen_);
  }
}

void Bank::judge(std::uint64_t epoch_before, const Reply& found, Trace& trace) {
  std::int64_t sum;
  const bool numbers = sum_of(found, sum);
  if (numbers && (!known_ || epoch_before != epoch_ || sum == sum_)) return;
  if (!suspects_.empty()) return;
  seen_ = fmt::format("accounts\n  expected: balances with the sum {}\n  found:    {}", sum_, found.to_string());
  if (!halves_ || under_way_.empty()) return trace.fail("half a transfer", seen_);
  suspects_ = under_way_;
}

void Bank::settle(const Reply& found) {
  if (!sum_of(found, sum_)) return;
  known_ = true;
  suspects_.clear();
  ++epoch_;
}

}  // namespace kelda::sim
