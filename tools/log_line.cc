#include "tools/log_line.h"

#include <cstdarg>
#include <ctime>

#include "runtime/core.h"

namespace kelda::tools {

std::string format_time(std::int64_t wall_clock_us) {
  std::int64_t milliseconds = wall_clock_us / 1000 % 1000;
  std::time_t seconds = wall_clock_us / 1'000'000;
  if (wall_clock_us < 0) seconds = milliseconds = 0;  // a clock before 1970 was never set
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char date[32], text[48];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text, sizeof text, "%s.%03dZ", date, static_cast<int>(milliseconds));
  return text;
}

void log_line(std::FILE* out, const std::string& text) {
  // One call, so that lines of two threads do not mix.
  std::fprintf(out, "%s %s\n", format_time(runtime::wall_clock_us()).c_str(), text.c_str());
  std::fflush(out);
}

void log_format(std::FILE* out, const char* format, ...) {
  char text[1024];
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  log_line(out, text);
}

}  // namespace kelda::tools
