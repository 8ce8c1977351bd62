// Says what a device holds that is not ours, so that nobody overwrites a filesystem by mistake.
#pragma once

#include <string>

#include "common/types.h"

namespace kelda::disk {

// How much of the start of a device describe_foreign() wants to see.
inline constexpr std::uint64_t kForeignProbeBytes = 128_KiB;

// A noun phrase for people ("an ext2/3/4 filesystem", "text"), never a piece of the content, from the device's first bytes
// (fewer than kForeignProbeBytes only on a smaller device). Public signatures, as in the formats' own documents.
std::string describe_foreign(Bytes start);

}  // namespace kelda::disk
