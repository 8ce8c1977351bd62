// The environment that lwIP runs in: memory under one bound, time, randomness. lwIP keeps its state in globals of its
// own, so there is one of it in a process and this file's account is a global as well.
//
// Memory: limit_bytes() is hard, allocations beyond it fail and lwIP drops the packet, which TCP survives. Half of it is
// for whoever needs more than kConnectionFloorBytes; the other half stays for the rest, so that a few connections that
// do not read cannot starve those that do (N2). Freeing is safe from any core.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kelda::net::lwip {

// What a connection may hold in each direction however little memory is left.
inline constexpr std::size_t kConnectionFloorBytes = 4096;

void set_memory_limit(std::uint64_t limit_bytes);
std::uint64_t memory_used_bytes();
// True when connections are to keep to their floor.
bool memory_is_scarce();

}  // namespace kelda::net::lwip
