// The medium of the simulated disk: what operations do to it, what goes wrong, and what a power cut leaves.
#include <algorithm>
#include <mutex>
#include <utility>

#include "blockdev/memory_sim.h"
#include "common/assert.h"

namespace kelda::blockdev {

namespace {

std::uint64_t length_of(const Request& request) {
  const bool transfers = request.op == Op::kRead || request.op == Op::kWrite;
  return transfers ? transfer_bytes(request) : request.length_bytes;
}

bool touches(const FaultRule& rule, const Request& request) {
  if (rule.op && *rule.op != request.op) return false;
  if (request.op == Op::kFlush) return true;
  return request.offset_bytes < rule.to_bytes && request.offset_bytes + length_of(request) > rule.from_bytes;
}

}  // namespace

Error MemoryDevice::error(const Request& request, Code code, const char* words) const {
  static constexpr const char* kVerbs[] = {"read", "write", "flush", "discard", "write of zeroes"};
  std::string text = info_.name + ": " + kVerbs[static_cast<std::size_t>(request.op)];
  if (request.op != Op::kFlush) {
    text += " of " + std::to_string(length_of(request)) + " bytes at " + std::to_string(request.offset_bytes);
  }
  return Error(code, text + ": " + words);
}

Result<> MemoryDevice::carry_out(const Entry& entry) {
  const Request& request = *entry.request;
  if (!dead_ && op_count_ >= plan_.crash_after_ops) {
    strike(request);
    die();
  }
  if (dead_) return error(request, Code::kIo, "the device is gone");
  ++op_count_;
  if (!entry.fault) return carry_out_sound(entry);
  return carry_out_faulty(entry, *entry.fault);
}

// When the operation, which is due now, will be carried out after all; kNever: not before it is released.
runtime::TimeNs MemoryDevice::judge(Entry& entry, runtime::TimeNs now_ns) {
  if (entry.judged || dead_ || op_count_ >= plan_.crash_after_ops) return now_ns;
  entry.judged = true;
  const FaultRule* rule = due_rule(*entry.request);
  if (rule == nullptr) return now_ns;
  ++faults_hit_;
  if (rule->fault == Fault::kStuck) return runtime::kNever;
  if (rule->fault == Fault::kSlow) return now_ns + rule->delay_ns;
  entry.fault = rule->fault;
  return now_ns;
}

const FaultRule* MemoryDevice::due_rule(const Request& request) {
  for (std::size_t i = 0; i < plan_.rules.size(); ++i) {
    const FaultRule& rule = plan_.rules[i];
    if (!touches(rule, request)) continue;
    const std::uint64_t before = rule_matches_[i]++;
    if (before >= rule.skip && before - rule.skip < rule.count) return &rule;
  }
  return nullptr;
}

Result<> MemoryDevice::carry_out_sound(const Entry& entry) {
  const Request& request = *entry.request;
  switch (request.op) {
    case Op::kRead: return load(request, request.offset_bytes);
    case Op::kWrite: return store(request, request.offset_bytes);
    case Op::kFlush:
      if (!info_.has_flush) return error(request, Code::kUnsupported, "this device has no flush");
      return make_durable(entry.flush_covers), Result<>();
    case Op::kDiscard:
    case Op::kWriteZeroes:
      if (request.op == Op::kDiscard ? !info_.has_discard : !info_.has_write_zeroes) {
        return error(request, Code::kUnsupported, "this device does not have that");
      }
      return change({.at = request.offset_bytes, .length = request.length_bytes, .data = {}}), Result<>();
  }
  __builtin_unreachable();
}

Result<> MemoryDevice::carry_out_faulty(const Entry& entry, Fault fault) {
  const Request& request = *entry.request;
  switch (fault) {
    case Fault::kError: return error(request, Code::kIo, "an error, as planned");
    case Fault::kNoSpace: return error(request, Code::kNoSpace, "no space left, as planned");
    case Fault::kPhantom: return {};
    case Fault::kBitRot:
      if (request.op == Op::kRead) rot(request);
      TRY(carry_out_sound(entry));
      if (request.op == Op::kWrite) rot(request);
      return {};
    case Fault::kMisdirect: {
      const std::uint64_t at = elsewhere(request.offset_bytes, length_of(request));
      if (request.op == Op::kRead) return load(request, at);
      if (request.op == Op::kWrite) return store(request, at);
      return carry_out_sound(entry);
    }
    case Fault::kBadSector: {
      const std::uint64_t bad = (request.offset_bytes + prng_.below(length_of(request))) / info_.block_bytes;
      if (request.op == Op::kRead) unreadable_.insert(bad);
      TRY(carry_out_sound(entry));
      if (request.op == Op::kWrite) unreadable_.insert(bad);
      return {};
    }
    case Fault::kSlow:
    case Fault::kStuck: break;  // see judge()
  }
  __builtin_unreachable();
}

Result<> MemoryDevice::load(const Request& request, std::uint64_t at) const {
  const auto bad = unreadable_.lower_bound(at / info_.block_bytes);
  if (bad != unreadable_.end() && *bad * info_.block_bytes < at + transfer_bytes(request)) {
    return error(request, Code::kIo, "a sector cannot be read");
  }
  for (const IoSegment& segment : request.segments) {
    current_.read(at, {segment.data, segment.bytes});
    at += segment.bytes;
  }
  return {};
}

Result<> MemoryDevice::store(const Request& request, std::uint64_t at) {
  Change what{.at = at, .length = transfer_bytes(request), .data = {}, .durable = request.fua};
  const std::uint64_t growth = current_.growth_bytes(at, what.length);
  if (growth > 0 && current_.used_bytes() + growth > plan_.capacity_bytes) {
    return error(request, Code::kNoSpace, "the disk is full");
  }
  what.data.reserve(what.length);
  for (const IoSegment& segment : request.segments) {
    what.data.insert(what.data.end(), segment.data, segment.data + segment.bytes);
  }
  change(std::move(what));
  return {};
}

void MemoryDevice::change(Change what) {
  const std::uint64_t first = round_up(what.at, info_.block_bytes) / info_.block_bytes;
  const std::uint64_t end = (what.at + what.length) / info_.block_bytes;
  if (first < end) unreadable_.erase(unreadable_.lower_bound(first), unreadable_.lower_bound(end));
  if (what.data.empty()) {
    current_.erase(what.at, what.length);
  } else {
    current_.write(what.at, what.data);
  }
  changes_.push_back(std::move(what));
}

void MemoryDevice::make_durable(std::uint64_t changes_below) {
  if (changes_below <= first_change_) return;  // a flush that overtook us covered them
  const std::uint64_t count = changes_below - first_change_;
  KELDA_ASSERT(count <= changes_.size());
  for (std::uint64_t i = 0; i < count; ++i) {
    const Change& what = changes_[i];
    if (what.data.empty()) {
      durable_.erase(what.at, what.length);
    } else {
      durable_.write(what.at, what.data);
    }
  }
  changes_.erase(changes_.begin(), changes_.begin() + static_cast<std::ptrdiff_t>(count));
  first_change_ = changes_below;
}

// One bit of the range, on the medium: no flush, rewrite excepted, and no power cut heals it.
void MemoryDevice::rot(const Request& request) {
  const std::uint64_t at = request.offset_bytes + prng_.below(length_of(request));
  std::byte value{};
  current_.read(at, {&value, 1});
  value ^= std::byte{1} << prng_.below(8);
  change({.at = at, .length = 1, .data = {value}, .durable = true});
}

// Aligned, inside, and not where it belongs (if the device has another place at all).
std::uint64_t MemoryDevice::elsewhere(std::uint64_t at, std::uint64_t length) {
  const std::uint64_t places = (info_.size_bytes - length) / info_.block_bytes + 1;
  if (places == 1) return at;
  const std::uint64_t own = at / info_.block_bytes;
  return (own + 1 + prng_.below(places - 1)) % places * info_.block_bytes;
}

void MemoryDevice::strike(const Request& request) {
  if (request.op == Op::kRead || request.op == Op::kFlush) return;
  Change what{.at = request.offset_bytes, .length = length_of(request)};
  for (const IoSegment& segment : request.segments) {
    what.data.insert(what.data.end(), segment.data, segment.data + segment.bytes);
  }
  struck_.push_back(std::move(what));
}

// What is in flight on any core is struck as well.
void MemoryDevice::die() {
  if (std::exchange(dead_, true)) return;
  for (auto& slot : queues_) {
    Queue* queue = slot.load(std::memory_order_acquire);
    if (queue == nullptr) continue;
    for (const auto& [due, entry] : queue->by_due_time) strike(*entry.request);
  }
  release_stuck();
}

void MemoryDevice::apply_random_units(SparseImage& image, const Change& what, Survival survival, Prng& prng) const {
  const std::uint64_t shape = prng.below(survival == Survival::kWhole ? 2 : 3);  // nothing, everything, or torn
  if (shape == 0) return;
  for (std::uint64_t done = 0; done < what.length;) {
    const std::uint64_t part = std::min<std::uint64_t>(what.length - done, info_.atomic_bytes);
    if (shape == 1 || prng.one_in(2)) {
      if (what.data.empty()) {
        image.erase(what.at + done, part);
      } else {
        image.write(what.at + done, Bytes(what.data).subspan(done, part));
      }
    }
    done += part;
  }
}

template <class Apply>
std::unique_ptr<MemoryDevice> MemoryDevice::rebooted(Apply apply) const {
  SparseImage left(durable_);
  for (const Change& what : changes_) {
    if (what.durable) {
      left.write(what.at, what.data);
    } else {
      apply(left, what);
    }
  }
  for (const Change& what : struck_) apply(left, what);
  return copy_with(left);
}

std::unique_ptr<MemoryDevice> MemoryDevice::copy_with(const SparseImage& image) const {
  std::unique_ptr<MemoryDevice> copy(new MemoryDevice(info_, image));
  copy->unreadable_ = unreadable_;
  return copy;
}

std::unique_ptr<MemoryDevice> MemoryDevice::crash(Survival survival, std::uint64_t seed) {
  {
    std::scoped_lock guard(latch_);
    die();
  }
  return snapshot(survival, seed);
}

std::unique_ptr<MemoryDevice> MemoryDevice::snapshot(Survival survival, std::uint64_t seed) const {
  std::scoped_lock guard(latch_);
  if (survival == Survival::kAll) return copy_with(current_);
  Prng prng(seed);
  return rebooted([&](SparseImage& image, const Change& what) {
    if (survival != Survival::kNone) apply_random_units(image, what, survival, prng);
  });
}

std::unique_ptr<MemoryDevice> MemoryDevice::crash(std::span<const Survived> survived) {
  std::scoped_lock guard(latch_);
  die();
  std::size_t next = 0;
  auto device = rebooted([&](SparseImage& image, const Change& what) {
    KELDA_ASSERT(next < survived.size());
    const auto [from, to] = survived[next++];
    KELDA_ASSERT(from <= to && to <= what.length && from % info_.atomic_bytes == 0 && to % info_.atomic_bytes == 0);
    if (what.data.empty()) {
      image.erase(what.at + from, to - from);
    } else {
      image.write(what.at + from, Bytes(what.data).subspan(from, to - from));
    }
  });
  KELDA_ASSERT(next == survived.size());
  return device;
}

std::vector<Unsettled> MemoryDevice::cut_power() {
  std::scoped_lock guard(latch_);
  die();
  std::vector<Unsettled> list;
  for (const Change& what : changes_) {
    if (!what.durable) list.push_back({what.at, what.length});
  }
  for (const Change& what : struck_) list.push_back({what.at, what.length});
  return list;
}

}  // namespace kelda::blockdev
