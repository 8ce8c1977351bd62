// The commands of the `kelda` program. command_line.cc fills the options; each command has a file of its own.
//
// Exit codes: 0 done; 1 the command failed (the message on stderr says why and what to do); 2 the command line is wrong.
// 3: done, but (dump) something is missing or uncertain, (selftest) something is suspicious. `kelda vm` exits with the guest's code.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"

namespace kelda::tools {

inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitIncomplete = 3;

// What clients may take. Those that are 0 without a word on it follow from --memory.
struct ClientLimits {
  std::uint32_t max_clients = 10'000;
  std::uint32_t idle_timeout_s = 0;     // 0: none
  std::uint32_t write_timeout_s = 60;
  std::uint32_t tcp_keepalive_s = 300;
  std::uint64_t all_bytes = 0;          // requests, replies, queued commands and watched keys of all clients
  std::uint64_t request_bytes = 0, reply_bytes = 0;  // of one client
};

// Where the clients' password comes from, see password.h.
struct PasswordOptions {
  std::optional<std::string> text;  // itself, on the command line
  std::optional<std::string> file;
};

struct VmOptions {
  std::string disk;
  std::string elf;                    // what to boot; empty: this program
  std::uint64_t create_bytes = 0;
  bool force = false;
  std::uint64_t memory_bytes = 256ull << 20;
  std::uint32_t cpus = 2;
  std::string resp = "127.0.0.1:6379";
  std::string accel = "auto";
  std::string machine = "q35";
  std::string net = "user";
  std::string durability = "flush";
  std::uint64_t scrub_interval_s = 7 * 86'400;
  std::uint64_t scrub_bytes_per_s = 8ull << 20;
  ClientLimits limits;
  PasswordOptions password;
  bool print_command = false;
  std::uint16_t gdb_port = 0;
  std::vector<std::string> qemu_flags;
  std::vector<std::string> guest_command;
};

// Of `kelda user-network`, which `kelda vm` starts beside QEMU.
struct UserNetworkCommand {
  int frames = -1;
  std::string listen;
  std::uint16_t port = 0;
};

struct ServeOptions {
  std::string disk;
  std::uint64_t create_bytes = 0;
  bool force = false;
  std::uint64_t memory_bytes = 0;     // 0: hosted 256 MiB, bare what the machine has
  std::uint32_t cores = 0;            // 0: hosted 2 or fewer, bare all
  std::string resp;                   // empty: hosted 127.0.0.1:6379, bare 0.0.0.0:6379
  std::string announce;               // what clients should use, if not `resp` itself
  std::string durability = "flush";
  ClientLimits limits;
  PasswordOptions password;
  std::string address;                // bare: "10.0.0.2/24"; empty: DHCP
  std::string gateway;
  std::uint64_t scrub_interval_s = 7 * 86'400;  // 0: only when asked
  std::uint64_t scrub_bytes_per_s = 8ull << 20;
};

struct CheckOptions {
  std::string disk;
  std::uint64_t memory_bytes = 0;     // 0: hosted 256 MiB, bare what the machine has
  bool json = false;
};

struct DumpOptions {
  std::string disk;
  std::string out;                    // empty: stdout
  std::string format = "resp";
  std::vector<std::string> names;     // ID=NAME
  std::uint64_t memory_bytes = 0;     // as of check
  bool uncertain = false;
  bool json = false;                  // the report
  bool quiet = false;                 // no report
};

struct SelftestOptions {
  std::string disk;
  std::uint64_t create_bytes = 0;
  bool force = false;
  double seconds = 0;                 // 0: all: 60; write: until the power goes
  std::uint64_t seed = 0;             // 0: random
  std::string phase = "all";
  std::uint64_t acknowledged = 0;
  bool json = false;
};

struct BenchKvOptions {
  std::string disk;                   // empty: a file in the temporary directory; bare: /dev/vda
  std::uint64_t create_bytes = 4ull << 30;
  bool force = false;
  bool keep_data = false;             // run on a disk that holds data, beside it
  std::uint64_t memory_bytes = 0;     // 0: hosted 1 GiB, bare what the machine has
  std::uint64_t records = 1'000'000;
  std::uint32_t value_bytes = 120;
  std::uint32_t threads = 1;
  std::uint32_t fibers_per_thread = 0;  // 0: 1 when only reading, else 32
  std::uint32_t read_percent = 100;
  double theta = 0.0;
  double seconds = 10;
  std::string durability = "flush";
  bool json = false;
};

struct SimOptions {
  std::uint64_t first_seed = 1, last_seed = 1;
  double seconds = 0;                 // of virtual time; 0: as the seed chooses
  std::uint32_t jobs = 1;
  std::uint32_t cores = 0, clients = 0, transactors = 0;  // 0: as the seed chooses
  std::string faults;                 // empty: as the seed chooses
  bool swarm = true;
  bool minimise = true;
  std::uint32_t max_failures = 3;     // then no further seed is begun
  std::uint32_t trace_lines = 60;
  bool json = false;
};

int vm(const VmOptions& options);
int user_network(const UserNetworkCommand& options);
int serve(const ServeOptions& options);
int check(const CheckOptions& options);
int dump(const DumpOptions& options);
int selftest(const SelftestOptions& options);
int bench_kv(const BenchKvOptions& options);
int sim(const SimOptions& options);

struct CommandLine {
  std::string command;  // which of them was given
  VmOptions vm;
  ServeOptions serve;
  CheckOptions check;
  DumpOptions dump;
  SelftestOptions selftest;
  UserNetworkCommand user_network;
  BenchKvOptions bench;
  SimOptions sim;
};

// Nothing: `line` is what to do. Else the exit code: help was asked for, or the command line is wrong and `err` says how.
std::optional<int> parse_command_line(int argc, char** argv, CommandLine& line, std::ostream& out, std::ostream& err);

// Parses, runs the command, returns the exit code.
int run_command_line(int argc, char** argv);

// "256M", "4G", "65536": bytes; suffixes K M G T are powers of 1024. False if it is no size.
bool parse_size(const std::string& text, std::uint64_t& bytes);
std::string format_size(std::uint64_t bytes);
// "90s", "30m", "12h", "7d", "3600", "off" (0): seconds. False if it is no time.
bool parse_duration(const std::string& text, std::uint64_t& seconds);
// What was asked for; else hosted the default, and bare all that is free but a share for stacks and the C library's heap.
// kOutOfMemory: the machine does not have as much as was asked for.
Result<std::uint64_t> memory_to_use(std::uint64_t asked_bytes, std::uint64_t hosted_default_bytes);

}  // namespace kelda::tools
