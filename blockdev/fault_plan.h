// What shall go wrong with a simulated device, and when.
//
// A plan is a list of rules. Each operation, in the order in which the device carries them out, is held against the
// rules from first to last; the first one that matches and is due takes effect.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "blockdev/blockdev.h"

namespace kelda::blockdev {

enum class Fault : std::uint8_t {
  kError,     // kIo is reported, nothing is done
  kNoSpace,   // kNoSpace is reported, nothing is done
  kBitRot,    // read or write: one bit of the stored range is flipped, silently
  kMisdirect, // write: stored at another place of the device, reported as done. Read: comes from another place
  kPhantom,   // write, discard: reported as done, not done. Flush: reported as done, makes nothing durable
  kSlow,      // carried out delay_ns later than it would have been
  kStuck,     // neither done nor reported until the power is cut or another plan is set
  kBadSector, // one block of the range cannot be read any more, until it is written again. A read fails at once, a write
              // is reported as done
};

struct FaultRule {
  Fault fault = Fault::kError;
  std::optional<Op> op = {};  // any, if none
  // Operations that touch this range; a flush touches everything.
  std::uint64_t from_bytes = 0;
  std::uint64_t to_bytes = ~std::uint64_t{0};
  std::uint64_t skip = 0;   // matching operations that pass unharmed first
  std::uint64_t count = 1;  // how many are hit then; kAlways: all
  runtime::TimeNs delay_ns = 0;  // of kSlow
  static constexpr std::uint64_t kAlways = ~std::uint64_t{0};
};

struct FaultPlan {
  std::uint64_t seed = 1;  // of delays, of the bit that rots, of where a misdirected write goes
  // Each operation takes a time between these, by the clock of its core; operations overtake each other accordingly.
  runtime::TimeNs delay_min_ns = 0;
  runtime::TimeNs delay_max_ns = 0;
  std::vector<FaultRule> rules = {};
  // The device dies before it carries out its n-th operation (the first is 0): that one and all later ones fail and do
  // nothing, except that a write which the death struck may have reached the medium in part (see Survival).
  std::uint64_t crash_after_ops = ~std::uint64_t{0};
  // A disk that fills up: writes to places never written fail with kNoSpace once this much is in use (4 KiB units).
  std::uint64_t capacity_bytes = ~std::uint64_t{0};
};

// What a power cut leaves of the writes that no flush has covered (FUA writes count as covered).
enum class Survival : std::uint8_t {
  kNone,    // none: all since the last flush is lost
  kAll,     // all that completed: what the kill of a process leaves behind
  kWhole,   // any of them, each in whole: a cache that writes back in an order of its own
  kRandom,  // any of them, in whole or torn: any set of atomic_bytes units of each write
};

// A write about whose survival a power cut decides, and the part of it that the medium got: bytes from its start, whole
// atomic_bytes units.
struct Unsettled {
  std::uint64_t offset_bytes = 0, length_bytes = 0;
};
struct Survived {
  std::uint64_t from_bytes = 0, to_bytes = 0;
};

}  // namespace kelda::blockdev
