// The kinds of harm that a simulation may do, as a set with names.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace kelda::sim {

enum class FaultKind : std::uint8_t {
  // The machine or the program ends.
  kCrash,        // power cut at any I/O: what no flush covered is lost
  kReorder,      // power cut: any of the unflushed writes survive, each in whole
  kTorn,         // power cut: any 512-byte units of the unflushed writes survive
  kKill,         // the process is killed: every completed write survives
  kRestart,      // clean stop and start
  kRecoveryCut,  // a power cut in the midst of a recovery
  kClone,        // two machines start on copies of one disk
  kGrow,         // the disk is larger at the next start
  // The disk misbehaves; nothing that was acknowledged may be lost.
  kReadError,
  kWriteError,
  kFlushError,
  kPermanentError,  // reads, writes or flushes fail until the next start
  kSlow,
  kStuck,
  kFull,
  // The disk destroys data: errors are in order then, wrong data never.
  kLatent,  // sectors that cannot be read
  kBitRot,
  kMisdirect,  // a write lands elsewhere
  kPhantom,    // a write is reported as done and is not
  // Everything around.
  kCut,
  kVanish,  // connections: closed, half-open
  kDelay,
  kLoss,    // pipes: slow, pieces sent again
  kClock,   // the wall clock jumps
  kMemory,  // no memory for a page's entry
  kStray,   // unparks that nobody meant
  // Never chosen by itself: shows that the simulator notices.
  kLyingFlush,   // flush and FUA are acknowledged and do nothing
  kRottenReads,  // bit rot that the simulator does not admit to
};
inline constexpr std::uint32_t kFaultKinds = static_cast<std::uint32_t>(FaultKind::kRottenReads) + 1;

const char* name_of(FaultKind kind);

class FaultSet {
 public:
  // "crash,torn", "none", "all". kInvalidArgument names what there is.
  static Result<FaultSet> parse(std::string_view text);
  static FaultSet all();  // what may be chosen by itself

  bool has(FaultKind kind) const { return (bits_ >> static_cast<unsigned>(kind) & 1) != 0; }
  void add(FaultKind kind) { bits_ |= std::uint64_t{1} << static_cast<unsigned>(kind); }
  void remove(FaultKind kind) { bits_ &= ~(std::uint64_t{1} << static_cast<unsigned>(kind)); }
  bool empty() const { return bits_ == 0; }
  // Data may be gone for good.
  bool destroys_data() const;
  // Reads, writes or flushes may fail, or the device be full.
  bool has_io_errors() const;
  // Power cuts and kills: the device is gone while the server still answers.
  bool ends_machines() const;
  // Old data may come back, with valid checksums.
  bool loses_writes() const { return has(FaultKind::kMisdirect) || has(FaultKind::kPhantom); }
  std::vector<FaultKind> kinds() const;
  std::string to_string() const;

 private:
  std::uint64_t bits_ = 0;
};

}  // namespace kelda::sim
