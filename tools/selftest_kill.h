// The numbered writes of selftest_order.h by a process of its own that is killed at random moments. Hosted.
//
// What it proves: the order in which this program, Linux and the device carry out writes and flushes. What it cannot: the
// death of a process drops neither the kernel's nor the disk's cache. Only a power cut does that.
#pragma once

#include <string>

#include "tools/selftest.h"

namespace kelda::tools {

// `disk` is open nowhere. Kills about once in a third of a second.
Result<> test_kills(const std::string& disk, std::uint64_t seed, double seconds, SelftestReport& report);

}  // namespace kelda::tools
