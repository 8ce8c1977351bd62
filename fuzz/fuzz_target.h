// Fuzz targets: functions that take any bytes at all and check what the code under test promises for them.
//
// Contract: run() may be called any number of times in one process and keeps nothing from one call to the next that
// could change an outcome. A broken promise aborts (KELDA_ASSERT, a sanitizer). The same functions are linked with
// libFuzzer (libfuzzer_main.cc, one program a target) and into an ordinary test (fuzz_test.cc), hosted and bare.
//
// A target that reads checksummed structures builds them itself, lets the input change them, and seals them again: what
// is tried is always what lies behind the checksum.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "common/types.h"

namespace kelda::fuzz {

struct FuzzTarget {
  std::string_view name;  // also of its folders below corpus/ and regressions/
  void (*run)(Bytes input);
  std::size_t max_bytes = 4096;  // of an input
};

extern const FuzzTarget kRequestParser, kCommands, kNode, kPageChange, kLog, kSuperblock, kDisk, kCommandLine, kDhcp,
    kFirmware;

inline constexpr std::array kTargets = {&kRequestParser, &kCommands,  &kNode,        &kPageChange, &kLog,
                                        &kSuperblock,    &kDisk,      &kCommandLine, &kDhcp,       &kFirmware};

}  // namespace kelda::fuzz
