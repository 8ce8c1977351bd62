// The files below corpus/ and regressions/, embedded at build time (embed_inputs.py): a VM has no file system.
#pragma once

#include <span>
#include <string_view>

#include "common/types.h"

namespace kelda::fuzz {

struct StoredInput {
  std::string_view target, file;
  Bytes bytes;
};

extern const std::span<const StoredInput> kStoredInputs;

}  // namespace kelda::fuzz
