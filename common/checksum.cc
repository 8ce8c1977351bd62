#include "common/checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace kelda {

std::uint64_t checksum64(Bytes data, std::uint64_t seed) { return XXH3_64bits_withSeed(data.data(), data.size(), seed); }

}  // namespace kelda
