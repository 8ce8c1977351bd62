// The command line of `kelda`, and nothing else: what it means is in the commands' own files.
#include <CLI/CLI.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "tools/commands.h"

namespace kelda::tools {

namespace {

// A size option: "256M" in, bytes out, the default shown as given.
CLI::Option* add_size(CLI::App* app, const std::string& name, std::uint64_t& bytes, const std::string& help,
                      const std::string& shown_default) {
  return app
      ->add_option_function<std::string>(
          name,
          [&bytes, name](const std::string& text) {
            // Nothing is no size either: inside, 0 stands for an option that was not given.
            if (!parse_size(text, bytes) || bytes == 0) throw CLI::ValidationError(name, "'" + text + "' is no size; write 256M or 4G");
          },
          help)
      ->type_name("SIZE")
      ->default_str(shown_default);
}

void add_durability(CLI::App* app, std::string& durability) {
  app->add_option("--durability", durability,
                  "flush: an acknowledged write is on the disk and flushed. none: it may be lost")
      ->check(CLI::IsMember({"flush", "none"}))
      ->capture_default_str();
}

void add_scrub(CLI::App* app, std::uint64_t& interval_s, std::uint64_t& bytes_per_s) {
  app->add_option_function<std::string>(
         "--scrub-interval",
         [&interval_s](const std::string& text) {
           if (!parse_duration(text, interval_s)) throw CLI::ValidationError("--scrub-interval", "'" + text + "' is no time; write 7d, 12h, 30m or off");
         },
         "How often the whole disk is verified in the background; off: only by KELDA.SCRUB START")
      ->type_name("TIME")
      ->default_str("7d");
  add_size(app, "--scrub-rate", bytes_per_s, "Bytes a second that this reads at most", "8M");
}

void add_limits(CLI::App* app, ClientLimits& o) {
  app->add_option("--max-clients", o.max_clients, "Connections at most")->check(CLI::PositiveNumber)->capture_default_str();
  app->add_option("--idle-timeout", o.idle_timeout_s, "Seconds after which an idle client is closed; 0: never")->capture_default_str();
  app->add_option("--write-timeout", o.write_timeout_s, "Seconds after which a client that takes none of its replies is closed")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app->add_option("--tcp-keepalive", o.tcp_keepalive_s, "Seconds of silence after which a client is asked for a sign of life")
      ->check(CLI::Range(1, 32'767))
      ->capture_default_str();
  add_size(app, "--client-memory", o.all_bytes, "Requests, replies and queued commands of all clients", "an eighth of --memory");
  add_size(app, "--request-limit", o.request_bytes, "One request, or one transaction's commands", "half of --client-memory, at most 64M");
  add_size(app, "--reply-limit", o.reply_bytes, "One reply", "half of --client-memory, at most 64M");
}

void add_password(CLI::App* app, PasswordOptions& o) {
  // An empty word is one that was given; the parser would make nothing of it in an optional.
  const auto into = [](std::optional<std::string>& out) { return [&out](const std::string& text) { out = text; }; };
  auto* file = app->add_option_function<std::string>("--password-file", into(o.file), "Clients must AUTH with the password in this file. Or set KELDA_PASSWORD in the environment")
                   ->type_name("F");
  app->add_option_function<std::string>("--password", into(o.text), "The same, on the command line, where every user of this computer can read it")->excludes(file);
}

void add_vm(CLI::App& root, VmOptions& o) {
  CLI::App* app = root.add_subcommand("vm", "Boot this very program as a virtual machine in QEMU");
  app->add_option("--disk", o.disk, "File or block device that becomes /dev/vda")->type_name("F");
  add_size(app, "--create", o.create_bytes, "Create the disk with this size if it is not there, and format it if it is empty", "");
  app->add_flag("--force", o.force, "Format the disk whatever it holds. Its content is lost");
  add_size(app, "--memory", o.memory_bytes, "Memory of the machine", "256M");
  app->add_option("--cpus", o.cpus, "Virtual CPUs")->check(CLI::Range(1, 64))->capture_default_str();
  app->add_option("--resp", o.resp, "Where Redis clients connect, on this host; port 0: any that is free")->type_name("ADDR:PORT")->capture_default_str();
  app->add_option("--accel", o.accel, "auto takes KVM where the processor really has it")
      ->check(CLI::IsMember({"auto", "kvm", "tcg"}))
      ->capture_default_str();
  app->add_option("--machine", o.machine, "QEMU machine type; microvm starts fastest")
      ->check(CLI::IsMember({"q35", "pc", "microvm"}))
      ->capture_default_str();
  app->add_option("--net", o.net, "user: forwards the port, without privileges; passt: the same through passt; tap=IF: a tap device; none")
      ->type_name("user|passt|tap=IF|none")
      ->capture_default_str();
  add_limits(app, o.limits);
  add_password(app, o.password);
  add_durability(app, o.durability);
  add_scrub(app, o.scrub_interval_s, o.scrub_bytes_per_s);
  app->add_flag("--print-command", o.print_command, "Print the QEMU command line instead of running it");
  app->add_option("--gdb", o.gdb_port, "Wait for gdb on this port of 127.0.0.1")->type_name("PORT");
  app->add_option("--elf", o.elf, "Boot another bootable program, for example a test")->type_name("F");
  app->add_option("--qemu", o.qemu_flags, "One more argument for QEMU; may be repeated")->type_name("ARG");
  app->add_option("command", o.guest_command, "After --: the guest's command instead of serve, e.g. -- check /dev/vda");
}

// Not for people: `kelda vm` starts it.
void add_user_network(CLI::App& root, UserNetworkCommand& o) {
  CLI::App* app = root.add_subcommand("user-network", "Carry the network of a virtual machine")->group("");
  app->add_option("--frames", o.frames, "Descriptor of the stream of Ethernet frames")->required();
  app->add_option("--listen", o.listen, "Where clients connect, on this host")->required();
  app->add_option("--port", o.port, "The machine's port that they reach")->required();
}

void add_serve(CLI::App& root, ServeOptions& o) {
  CLI::App* app = root.add_subcommand("serve", "Serve a disk to Redis clients");
  app->add_option("--disk", o.disk, "File or block device; bare: /dev/vda")->type_name("F")->required();
  add_size(app, "--create", o.create_bytes, "Create the disk with this size if it is not there, and format it if it is empty", "");
  app->add_flag("--force", o.force, "Format the disk whatever it holds. Its content is lost");
  add_size(app, "--memory", o.memory_bytes, "Bound of all memory; bare: what the machine has", "256M");
  app->add_option("--cores", o.cores, "Cores that serve; bare: all. Default: 2, or what there is");
  app->add_option("--resp", o.resp, "Where to listen for Redis clients; port 0: any that is free")
      ->type_name("ADDR:PORT")
      ->default_str("127.0.0.1:6379; bare 0.0.0.0:6379");
  app->add_option("--announce", o.announce, "Address that clients use, when it differs from --resp")->type_name("ADDR:PORT");
  add_durability(app, o.durability);
  add_scrub(app, o.scrub_interval_s, o.scrub_bytes_per_s);
  add_limits(app, o.limits);
  add_password(app, o.password);
  app->add_option("--address", o.address, "Bare: static address, as 10.0.0.2/24. Default: DHCP")->type_name("ADDR/BITS");
  app->add_option("--gateway", o.gateway, "Bare: router, with --address")->type_name("ADDR");
}

void add_check(CLI::App& root, CheckOptions& o) {
  CLI::App* app = root.add_subcommand("check", "Verify a whole disk without changing it; exit 0 only if it is sound");
  app->add_option("disk", o.disk, "File or block device")->type_name("F")->required();
  add_size(app, "--memory", o.memory_bytes, "Bound of all memory", "256M");
  app->add_flag("--json", o.json, "For programs");
}

void add_dump(CLI::App& root, DumpOptions& o) {
  CLI::App* app = root.add_subcommand("dump", "Write what a disk holds, however damaged, without changing it; exit 0 only if nothing is missing, "
                                              "3 if something is");
  app->add_option("disk", o.disk, "File or block device")->type_name("F")->required();
  app->add_option("--out", o.out, "A new file for the dump; default: stdout. The report goes to stderr")->type_name("F");
  app->add_option("--format", o.format, "resp: commands for `redis-cli --pipe`. json: an object a line, trees without Redis keys too. none: the report only")
      ->check(CLI::IsMember({"resp", "json", "none"}))
      ->capture_default_str();
  app->add_flag("--uncertain", o.uncertain, "Dump also what is there but may be out of date or was never committed");
  app->add_option("--name", o.names, "Name of a tree whose entry in the catalog is lost, e.g. 2=kv.0; may be repeated")->type_name("ID=NAME");
  add_size(app, "--memory", o.memory_bytes, "Bound of the memory for pages, beside what the log's changes take", "256M");
  app->add_flag("--json", o.json, "The report for programs");
  app->add_flag("--quiet", o.quiet, "No report; bare, stdout and stderr are one console");
}

void add_selftest(CLI::App& root, SelftestOptions& o) {
  CLI::App* app = root.add_subcommand("selftest", "Find out whether a disk can be trusted. Destroys what is on it; exit 0 if it is fit, 3 if "
                                                  "something is suspicious, 1 if it is not fit");
  app->add_option("--disk", o.disk, "Scratch file or block device; bare: /dev/vda")->type_name("F")->required();
  add_size(app, "--create", o.create_bytes, "Create the file with this size if it is not there", "");
  app->add_flag("--force", o.force, "Also if the disk is not blank. Its content is lost");
  app->add_option("--seconds", o.seconds, "About how long. Default: 60; --phase write: until the power goes");
  app->add_option("--seed", o.seed, "Of what is written where. Default: random, printed");
  app->add_option("--phase", o.phase, "write: numbered writes; note the last number printed, and cut the power. verify: afterwards, is all of it there?")
      ->check(CLI::IsMember({"all", "write", "verify"}))
      ->capture_default_str();
  app->add_option("--acknowledged", o.acknowledged, "verify: the last number that was printed before the power cut");
  app->add_flag("--json", o.json, "For programs");
}

void add_bench(CLI::App& root, BenchKvOptions& o) {
  CLI::App* bench = root.add_subcommand("bench", "Benchmarks");
  bench->require_subcommand(1);
  CLI::App* app = bench->add_subcommand("kv", "Drive the engine in this process with random reads and writes");
  app->add_option("--disk", o.disk, "File or block device. Default: a new file in $TMPDIR; bare: /dev/vda")->type_name("F");
  add_size(app, "--create", o.create_bytes, "Size of the disk if it is created", "4G");
  app->add_flag("--force", o.force, "Format the disk whatever it holds. Its content is lost");
  add_size(app, "--memory", o.memory_bytes, "Bound of the engine's memory; bare: what the machine has", "1G");
  app->add_flag("--keep-data", o.keep_data, "Also on a disk that holds data, which stays as it is. What the benchmark wrote is removed, as always");
  app->add_option("--records", o.records, "Keys of 16 bytes, loaded first")->capture_default_str();
  app->add_option("--value-bytes", o.value_bytes, "Bytes of a value")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app->add_option("--threads", o.threads, "Cores that drive")->check(CLI::Range(1, 64))->capture_default_str();
  app->add_option("--fibers", o.fibers_per_thread, "Clients a thread. Default: 1 when only reading, else 32");
  app->add_option("--read-percent", o.read_percent, "The rest are updates")->check(CLI::Range(0, 100))->capture_default_str();
  app->add_option("--theta", o.theta, "Skew of the keys: 0 uniform, 0.99 as YCSB's zipfian")
      ->check(CLI::Range(0.0, 0.999))
      ->capture_default_str();
  app->add_option("--seconds", o.seconds, "Measured time")->capture_default_str();
  add_durability(app, o.durability);
  app->add_flag("--json", o.json, "For programs");
}

// "A..B"
std::string parse_seeds(const std::string& text, SimOptions& o) {
  const auto dots = text.find("..");
  char* end = nullptr;
  o.first_seed = std::strtoull(text.c_str(), &end, 10);
  if (dots == std::string::npos || dots == 0 || end != text.c_str() + dots) return "'" + text + "' is no range; write 1..1000";
  o.last_seed = std::strtoull(text.c_str() + dots + 2, &end, 10);
  if (*end != 0 || dots + 2 == text.size() || o.last_seed < o.first_seed) return "'" + text + "' is no range; write 1..1000";
  return {};
}

void add_sim(CLI::App& root, SimOptions& o) {
  CLI::App* app = root.add_subcommand(
      "sim", "Simulate server, network and disk under faults, in virtual time; the same seed replays the same history");
  auto* seed = app->add_option_function<std::uint64_t>("--seed", [&o](std::uint64_t n) { o.first_seed = o.last_seed = n; }, "One history")
                   ->default_str("1");
  app->add_option_function<std::string>(
         "--seeds",
         [&o](const std::string& text) {
           if (const std::string wrong = parse_seeds(text, o); !wrong.empty()) throw CLI::ValidationError("--seeds", wrong);
         },
         "Many histories")
      ->type_name("A..B")
      ->excludes(seed);
  app->add_option("--jobs", o.jobs, "Histories at once; bare: one after the other")->check(CLI::Range(1, 256))->capture_default_str();
  app->add_option("--seconds-of-virtual-time", o.seconds, "Length of the attack. Default: as the seed chooses")->check(CLI::Range(0.01, 1e6));
  app->add_flag("--swarm,!--no-swarm", o.swarm, "The seed chooses the configuration too (default); --no-swarm: the normal one, no faults");
  app->add_option("--faults", o.faults, "all, none, or names with commas; a wrong one lists what there is. Default: as the seed chooses");
  app->add_option("--cores", o.cores, "Virtual cores. Default: as the seed chooses")->check(CLI::Range(1, 32));
  app->add_option("--clients", o.clients, "Clients. Default: as the seed chooses")->check(CLI::Range(1, 100));
  app->add_option("--transactors", o.transactors, "Clients that run transactions on shared keys. Default: as the seed chooses")->check(CLI::Range(1, 100));
  app->add_flag("--minimise,!--no-minimise", o.minimise, "After a failure, look for a smaller history that fails alike (default)");
  app->add_option("--max-failures", o.max_failures, "Begin no further seed after so many")->check(CLI::Range(1, 1'000'000))->capture_default_str();
  app->add_option("--trace", o.trace_lines, "Last events shown of a failure")->check(CLI::Range(0, 400))->capture_default_str();
  app->add_flag("--json", o.json, "For programs");
}

constexpr const char* kVersionLine = "kelda " KELDA_VERSION;

// `kelda help`, `kelda help bench kv`: as --help, which every command has.
int help(CLI::App& root, std::ostream& out, std::ostream& err) {
  CLI::App* app = &root;
  std::string path = "kelda", above;
  const std::vector<std::string> words = root.get_subcommand("help")->remaining();
  root.clear();  // else the parser explains the command that was given, which is this one
  for (const std::string& word : words) {
    const auto named = app->get_subcommands([&](CLI::App* command) { return command->get_name() == word; });
    if (named.empty()) {
      err << path << ": '" << word << "' is no command; `kelda help` lists what there is\n";
      return kExitUsage;
    }
    app = named.front();
    above = path;
    path += " " + word;
  }
  out << app->help(above);
  return 0;
}

bool is_command(const CLI::App& root, const std::string& word) {
  const auto named = root.get_subcommands([&](const CLI::App* command) { return command->get_name() == word; });
  return !named.empty();
}

}  // namespace

std::optional<int> parse_command_line(int argc, char** argv, CommandLine& line, std::ostream& out, std::ostream& err) {
  CLI::App root("Kelda: a transactional database that is a Linux process or, the same file, a virtual machine.", "kelda");
  root.require_subcommand(1);
  root.fallthrough(false);
  root.footer("`kelda COMMAND --help` explains a command.");
  add_vm(root, line.vm);
  add_serve(root, line.serve);
  add_check(root, line.check);
  add_dump(root, line.dump);
  add_selftest(root, line.selftest);
  add_user_network(root, line.user_network);
  add_bench(root, line.bench);
  add_sim(root, line.sim);
  root.add_subcommand("version", "Print the version");
  root.add_subcommand("help", "Explain this program, or the command that is named")->prefix_command();
  root.set_version_flag("-v,--version", kVersionLine, "Print the version");
  try {
    root.parse(argc, argv);
    if (root.got_subcommand("help")) return help(root, out, err);
    if (root.got_subcommand("version")) {
      out << kVersionLine << "\n";
      return 0;
    }
  } catch (const CLI::ParseError& error) {
    // The parser's own text does not say which word it did not know.
    if (argc > 1 && argv[1][0] != '-' && !is_command(root, argv[1])) {
      err << "kelda: '" << argv[1] << "' is no command; there are vm, serve, check, dump, selftest, sim, bench, version and help\n";
      return kExitUsage;
    }
    return root.exit(error, out, err) == 0 ? 0 : kExitUsage;
  }
  line.command = root.get_subcommands().front()->get_name();
  return std::nullopt;
}

namespace {

int run_command(const CommandLine& line) {
  if (line.command == "vm") return vm(line.vm);
  if (line.command == "serve") return serve(line.serve);
  if (line.command == "user-network") return user_network(line.user_network);
  if (line.command == "check") return check(line.check);
  if (line.command == "dump") return dump(line.dump);
  if (line.command == "selftest") return selftest(line.selftest);
  if (line.command == "bench") return bench_kv(line.bench);
  return sim(line.sim);
}

// What these print tells how they are; what the others print is what they were asked for.
bool is_server(const CommandLine& line) {
  return line.command == "serve" || line.command == "user-network" || (line.command == "vm" && !line.vm.print_command);
}

// Whoever asked must not take half an answer for all of it.
int end_output(const std::string& command, int code) {
  std::cout.flush();
  const bool complete = std::cout.good() && std::ferror(stdout) == 0 && std::fflush(stdout) == 0;
  if (complete) return code;
  std::fprintf(stderr, "kelda%s: stdout cannot be written to (no room, or nobody reads it): what is there is not all of it\n",
               command.empty() ? "" : (" " + command).c_str());
  return code == 0 ? kExitFailed : code;
}

}  // namespace

int run_command_line(int argc, char** argv) {
  CommandLine line;
  if (const auto ended = parse_command_line(argc, argv, line, std::cout, std::cerr)) return end_output("", *ended);
  // By lines also into a file or a pipe, so that errors on stderr stand where they belong. A dump is large, and alone there.
  if (line.command != "dump") std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (is_server(line)) {
    // Nobody reads the console any more: no reason for a database to end.
    std::signal(SIGPIPE, SIG_IGN);
    return run_command(line);
  }
  const int code = run_command(line);
  return end_output(line.command, code);
}

}  // namespace kelda::tools
