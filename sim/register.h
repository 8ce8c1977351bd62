// A register: one or several keys that its owner always writes together, and the judge of what is read from them.
//
// Contract: only the owner writes, one operation at a time, and after a write of unknown outcome it reads before it
// writes again. Then every version that a read may return lies between the last one known to be there when the read
// began and the last one begun when it ended, and all keys show the same version.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "sim/resp.h"
#include "sim/trace.h"
#include "sim/wall_clock.h"

namespace kelda::sim {

struct Version {
  bool present = false;
  bool failed = false;   // never happened
  bool partial = false;  // some of the keys have it, others not: the server said so, or may have meant to
  // Sent as several commands of which one may fail alone, for want of space or memory or for a page that cannot be
  // read.
  bool may_be_partial = false;
  std::uint32_t bytes = 0;
  std::int64_t expires_at_ms = 0;  // 0: never
  runtime::TimeNs invoked_ns = 0, acknowledged_ns = 0;
  std::int64_t invoked_wall_ms = 0;
};

class Register {
 public:
  Register(std::uint32_t owner, std::uint32_t number, std::uint32_t key_count);

  const std::vector<std::string>& keys() const { return keys_; }
  std::string value(std::size_t version) const;
  const Version& latest() const { return versions_.back(); }
  std::size_t latest_number() const { return versions_.size() - 1; }

  // A write by the owner.
  bool in_doubt() const { return in_doubt_; }
  void invoke(Version version);
  void acknowledge(Trace& trace);
  void acknowledge_in_part(const std::vector<bool>& done);  // by key
  void refuse() {
    versions_.back().failed = true;
    in_doubt_ = false;
    half_seen_.clear();
  }
  void lose() {
    versions_.back().partial |= versions_.back().may_be_partial;
    in_doubt_ = true;
    half_seen_.clear();
  }

  // A read by anyone: mark() when it begins, judge() with one reply a key when it ends.
  struct Mark {
    std::vector<std::size_t> low;  // by key
    runtime::TimeNs at_ns = 0;
    std::int64_t wall_ms = 0;
  };
  Mark mark() const;
  // `settled`: by the owner, or by whoever knows that no write is under way: the outcome of one in doubt is known then.
  // `forgiving`: the disk may have brought old versions back.
  void judge(const Mark& mark, std::span<const Reply> found, bool settled, bool forgiving, const WallClock& wall,
             Trace& trace);

 private:
  bool matches(std::size_t version, const Reply& found, WallClock::Range since_write,
               WallClock::Range during_read) const;
  std::string describe_failure(const Mark& mark, std::span<const Reply> found) const;
  std::string describe(std::size_t version) const;

  std::uint32_t owner_, number_;
  std::vector<std::string> keys_;
  std::vector<Version> versions_;    // [0] is absence, before the first write
  std::vector<std::size_t> stable_;  // by key: known to be there, unless a later one is
  bool in_doubt_ = false;            // the last version
  std::string half_seen_;            // what a reader saw of the last version, to be judged when its outcome is known
};

}  // namespace kelda::sim
