#include <signal.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "runtime/backend.h"
#include "runtime/core_hosted.h"
#include "runtime/machine_platform.h"

namespace kelda::runtime {

namespace {

std::string read_file(const char* path) {
  std::string text;
  if (std::FILE* file = std::fopen(path, "re")) {
    char buffer[4096];
    while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, file)) text.append(buffer, n);
    std::fclose(file);
  }
  return text;
}

std::uint64_t available_memory_bytes() {
  const std::string text = read_file("/proc/meminfo");
  const auto at = text.find("MemAvailable:");
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at + 13, nullptr, 10) * 1024;
}

// Field 2 of proc(5) /proc/self/statm, in pages.
std::uint64_t resident_memory_bytes() {
  const std::string text = read_file("/proc/self/statm");
  const auto blank = text.find(' ');
  if (blank == std::string::npos) return 0;
  return std::strtoull(text.c_str() + blank + 1, nullptr, 10) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

// Field 22 of proc(5) /proc/self/stat: start time after boot, in clock ticks.
std::uint64_t process_age_us() {
  const std::string text = read_file("/proc/self/stat");
  const auto paren = text.rfind(')');
  if (paren == std::string::npos) return 0;
  const char* at = text.c_str() + paren + 1;
  for (int field = 2; field < 21 && at != nullptr; ++field) at = std::strchr(at + 1, ' ');
  if (at == nullptr) return 0;
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  const auto now_us = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000 + static_cast<std::uint64_t>(now.tv_nsec) / 1000;
  const auto start_us = std::strtoull(at, nullptr, 10) * 1'000'000 / static_cast<std::uint64_t>(sysconf(_SC_CLK_TCK));
  return now_us > start_us ? now_us - start_us : 0;
}

}  // namespace

MachineInfo hosted_machine_info() {
  MachineInfo info;
  utsname name{};
  uname(&name);
  info.platform = std::string(name.sysname) + " " + name.release;
  info.cpu_count = hosted_platform().cpu_count();  // not of this thread, which may be pinned by now
  struct sysinfo memory {};
  if (sysinfo(&memory) == 0) info.memory_bytes = std::uint64_t{memory.totalram} * memory.mem_unit;
  info.available_bytes = available_memory_bytes();
  info.resident_bytes = resident_memory_bytes();
  info.since_start_us = process_age_us();
  return info;
}

void hosted_set_on_stop_request(Event& event) {
  sigset_t stop_signals;
  sigemptyset(&stop_signals);
  for (const int signal : {SIGINT, SIGTERM, SIGQUIT}) sigaddset(&stop_signals, signal);
  // nohup: who started us wants it ignored. A blocked signal would come nevertheless.
  struct sigaction hang_up {};
  if (sigaction(SIGHUP, nullptr, &hang_up) == 0 && hang_up.sa_handler != SIG_IGN) sigaddset(&stop_signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &stop_signals, nullptr);
  // One thread waits for them; it lives as long as the process and touches nothing but the event.
  std::thread([&event, stop_signals] {
    int signal = 0;
    sigwait(&stop_signals, &signal);
    event.set();
    // A second request means now: the default action.
    pthread_sigmask(SIG_UNBLOCK, &stop_signals, nullptr);
    for (;;) pause();
  }).detach();
}

}  // namespace kelda::runtime
