#include "common/result.h"

namespace kelda {

const char* code_name(Code code) {
  switch (code) {
    case Code::kNotFound: return "not found";
    case Code::kExists: return "exists already";
    case Code::kInvalidArgument: return "invalid argument";
    case Code::kTooLarge: return "too large";
    case Code::kConflict: return "conflict with another transaction";
    case Code::kRestart: return "restart";
    case Code::kAborted: return "aborted";
    case Code::kNoSpace: return "disk full";
    case Code::kOutOfMemory: return "out of memory";
    case Code::kIo: return "input/output error";
    case Code::kCorrupt: return "corrupt";
    case Code::kForeignDisk: return "foreign disk";
    case Code::kBlankDisk: return "blank disk";
    case Code::kNewerFormat: return "newer format";
    case Code::kTooSmall: return "too small";
    case Code::kBusy: return "busy";
    case Code::kNoFlush: return "no flush";
    case Code::kUnsupported: return "unsupported";
    case Code::kFailed: return "engine failed";
    case Code::kTimeout: return "timed out";
    case Code::kLockTimeout: return "lock not had in time";
    case Code::kSelfDeadlock: return "would wait for itself";
    case Code::kClosed: return "closed";
  }
  return "unknown";
}

std::string Error::to_string() const {
  if (message_.empty()) return code_name(code_);
  return message_;
}

Error Error::with_context(const std::string& context) && {
  return Error(code_, context + ": " + to_string());
}

}  // namespace kelda
