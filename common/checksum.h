// XXH3-64, the one checksum of all on-disk structures.
#pragma once

#include <cstdint>

#include "common/types.h"

namespace kelda {

// Seeded, so that the same bytes at another position (another page id, batch number, ...) do not verify.
std::uint64_t checksum64(Bytes data, std::uint64_t seed);

}  // namespace kelda
