#include "sim/faults.h"

#include <algorithm>
#include <array>

namespace kelda::sim {

namespace {

constexpr std::array<const char*, kFaultKinds> kNames = {
    "crash", "reorder",    "torn",        "kill",        "restart",         "recovery-cut", "clone",
    "grow",  "read-error", "write-error", "flush-error", "permanent-error", "slow",         "stuck",
    "full",  "latent",     "bit-rot",     "misdirect",   "phantom",         "cut",          "vanish",
    "delay", "loss",       "clock",       "memory",      "stray",           "lying-flush",  "rotten-reads"};

}  // namespace

const char* name_of(FaultKind kind) {
  return kNames[static_cast<std::size_t>(kind)];
}

FaultSet FaultSet::all() {
  FaultSet set;
  for (std::uint32_t i = 0; i < kFaultKinds; ++i) set.add(static_cast<FaultKind>(i));
  set.remove(FaultKind::kLyingFlush);
  set.remove(FaultKind::kRottenReads);
  return set;
}

Result<FaultSet> FaultSet::parse(std::string_view text) {
  if (text == "all") return all();
  FaultSet set;
  if (text == "none") return set;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    std::uint32_t i = 0;
    while (i < kFaultKinds && word != kNames[i]) ++i;
    if (i == kFaultKinds) {
      std::string there_are;
      for (const char* name : kNames) there_are += std::string(" ") + name;
      return Error(Code::kInvalidArgument,
                   "'" + std::string(word) + "' is no fault; there are all, none and:" + there_are);
    }
    set.add(static_cast<FaultKind>(i));
  }
  return set;
}

bool FaultSet::has_io_errors() const {
  return has(FaultKind::kReadError) || has(FaultKind::kWriteError) || has(FaultKind::kFlushError) ||
         has(FaultKind::kPermanentError) || has(FaultKind::kFull) || has(FaultKind::kLatent);
}

bool FaultSet::ends_machines() const {
  for (const FaultKind kind : {FaultKind::kCrash, FaultKind::kReorder, FaultKind::kTorn, FaultKind::kKill,
                               FaultKind::kRecoveryCut, FaultKind::kClone, FaultKind::kGrow}) {
    if (has(kind)) return true;
  }
  return false;
}

bool FaultSet::destroys_data() const {
  return has(FaultKind::kLatent) || has(FaultKind::kBitRot) || loses_writes();
}

std::vector<FaultKind> FaultSet::kinds() const {
  std::vector<FaultKind> result;
  for (std::uint32_t i = 0; i < kFaultKinds; ++i) {
    if (has(static_cast<FaultKind>(i))) result.push_back(static_cast<FaultKind>(i));
  }
  return result;
}

std::string FaultSet::to_string() const {
  std::string text;
  for (const FaultKind kind : kinds()) text += (text.empty() ? "" : ",") + std::string(name_of(kind));
  return text.empty() ? "none" : text;
}

}  // namespace kelda::sim
