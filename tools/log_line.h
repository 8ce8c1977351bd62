// Lines of a server's console that carry their time.
//
// Two lines stand alone at the beginning of a line, without a time, because programs wait for them: "ready: redis://..."
// and "closed cleanly". Messages of a command that failed to start have none either.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace kelda::tools {

// "2026-11-30T22:49:07.123Z TEXT\n" in UTC, written at once. A console that cannot be written to is no reason to stop a
// server: the line is lost then. Any thread.
void log_line(std::FILE* out, const std::string& text);
[[gnu::format(printf, 2, 3)]] void log_format(std::FILE* out, const char* format, ...);

// "2026-11-30T22:49:07.123Z" of microseconds since 1970 (UTC).
std::string format_time(std::int64_t wall_clock_us);

}  // namespace kelda::tools
