// Whether the machine's clock can be believed, and by what time keys expire.
//
// A key whose time has come is deleted, and nothing brings it back. A clock that is decades ahead (a dead battery, a
// virtual machine's real-time clock misread) would so delete every key that has a time to live. So a clock that cannot be
// right is said at the start (kelda serve) and not acted on: nothing expires until it is set right.
#pragma once

#include <cstdint>
#include <string>

namespace kelda::server {

// False before 2026, the year in which this program was written, and from 70 years after that on. `now_ms` is in
// milliseconds since 1970 UTC.
bool clock_can_be_right(std::int64_t now_ms);

// The time up to which keys have expired when the clock says `now_ms`: that, or 0 (nothing has) when it cannot be right.
std::int64_t expiry_time_ms(std::int64_t now_ms);

// What to say of such a clock, with the date that it gives.
std::string wrong_clock_text(std::int64_t now_ms);

}  // namespace kelda::server
