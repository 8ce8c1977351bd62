// How far long work is, for people: on a terminal only, a few times a second, on stderr.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdio>

#include "runtime/core.h"
#include "runtime/machine.h"

namespace kelda::tools {

class Progress {
 public:
  explicit Progress(const char* unit) : unit_(unit) {}
  ~Progress() {
    if (shown_) std::fprintf(stderr, "\r\033[K");
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void operator()(std::uint64_t done, std::uint64_t total) {
    if (!terminal_ || total == 0) return;
    const auto now_ns = runtime::now_ns();
    if (now_ns - last_ns_ < 200'000'000) return;
    last_ns_ = now_ns;
    shown_ = true;
    std::fprintf(stderr, "\r%llu of %llu %s\033[K", static_cast<unsigned long long>(done), static_cast<unsigned long long>(total), unit_);
  }

 private:
  const char* unit_;
  // A bare machine's console may lead anywhere.
  bool terminal_ = !runtime::machine_info().bare && isatty(STDERR_FILENO) != 0;
  bool shown_ = false;
  std::uint64_t last_ns_ = 0;
};

}  // namespace kelda::tools
