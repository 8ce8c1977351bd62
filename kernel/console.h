// Serial console: COM1, 16550, polled.
//
// Contract: console_write() writes whole messages one after the other from any CPU. The panic path never waits for a
// lock. A machine without the port (reads as all ones) swallows output.
#pragma once

#include <cstddef>
#include <string_view>

namespace kelda::kernel {

// Bytes go out as they are: the host's terminal is not a teletype.
void console_write(std::string_view text);
// Takes at most `capacity` bytes that have come in; 0 when none. Never waits.
std::size_t console_read(char* out, std::size_t capacity);

}  // namespace kelda::kernel
