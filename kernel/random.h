// Random bytes.
//
// Contract: a ChaCha20 generator (RFC 8439 block function, key erased after each request) seeded from RDSEED or RDRAND
// and from whatever add_entropy() is given. On a machine without either instruction and without virtio-rng the seed is
// the time-stamp counter only: random_source() then says so and a warning is printed. Thread-safe.
#pragma once

#include "common/types.h"

namespace kelda::kernel {

void random_fill(MutableBytes out);
// Mixes in bytes from another source (virtio-rng). Never makes the generator weaker.
void add_entropy(Bytes seed, const char* source);
// For people: "rdseed", "rdrand", "virtio-rng", "time-stamp counter only".
const char* random_source();

}  // namespace kelda::kernel
