// INFO TIME LASTSAVE SAVE BGSAVE SHUTDOWN WAIT ROLE.
#include "server/client.h"
#include "server/info.h"
#include "server/text.h"

namespace kelda::server {

namespace {

Result<> info(Call& call) {
  std::uint32_t sections = call.count() == 1 ? info_sections("default") : 0;
  for (const std::string_view word : call.args.subspan(1)) {
    TRY(call.give_way());
    sections |= info_sections(word);
  }
  call.reply.verbatim(info_text(call.server, call.keys.now_ms(), sections));
  return {};
}

Result<> time(Call& call) {
  const std::int64_t now_us = runtime::wall_clock_us();
  call.reply.array(2);
  call.reply.integer_bulk(now_us / 1'000'000);
  call.reply.integer_bulk(now_us % 1'000'000);
  return {};
}

// Every acknowledged change is durable already. What SAVE adds is a checkpoint: the next start has less to recover.
Result<> lastsave(Call& call) {
  call.reply.integer(call.server.last_checkpoint_ms.load(std::memory_order_relaxed) / 1000);
  return {};
}

Result<> save(Call& call) {
  TRY(call.server.checkpoint());
  call.reply.ok();
  return {};
}

Result<> bgsave(Call& call) {
  if (call.count() > 2 || (call.count() == 2 && !call.is(1, "schedule"))) return call.syntax_error();
  ServerState& server = call.server;
  if (server.checkpoint_running.exchange(true)) return call.fail("ERR Background save already in progress");
  const auto started = runtime::spawn_counted(
      runtime::Core::current(), server.background,
      [&server] {
        (void)server.checkpoint();  // a failure shows in INFO persistence, as in Redis
        server.checkpoint_running.store(false);
      },
      {.name = "bgsave"});
  if (!started) {
    server.checkpoint_running.store(false);
    return started.error();
  }
  call.reply.simple("Background saving started");
  return {};
}

// Answered by the end of the connection, as in Redis. NOSAVE only spares the final checkpoint's wait in Redis; here
// nothing is ever lost, and whoever runs the server closes the database after it.
Result<> shutdown(Call& call) {
  bool save = false, no_save = false, other = false, abort = false;
  for (std::size_t i = 1; i < call.count(); ++i) {
    TRY(call.give_way());
    const bool known = call.is(i, "save") || call.is(i, "nosave") || call.is(i, "now") || call.is(i, "force") || call.is(i, "abort");
    if (!known) return call.syntax_error();
    save |= call.is(i, "save");
    no_save |= call.is(i, "nosave");
    other |= call.is(i, "now") || call.is(i, "force");
    abort |= call.is(i, "abort");
  }
  if ((save && no_save) || (abort && (save || no_save || other))) return call.syntax_error();
  if (abort) return call.fail("ERR No shutdown in progress.");
  call.client.closing = true;
  call.server.request_stop();
  return {};
}

// There are no replicas: whatever the time-out, none acknowledges.
Result<> wait(Call& call) {
  const auto replicas = parse_integer(call.arg(1)), timeout = parse_integer(call.arg(2));
  if (!replicas) return call.not_an_integer();
  if (!timeout) return call.fail("ERR timeout is not an integer or out of range");
  if (*timeout < 0) return call.fail("ERR timeout is negative");
  call.reply.integer(0);
  return {};
}

Result<> role(Call& call) {
  call.reply.array(3);
  call.reply.bulk("master");
  call.reply.integer(0);
  call.reply.array(0);
  return {};
}

constexpr Command kCommands[] = {
    {"info", -1, 0, 0, 0, 0, info, "server", "1.0.0", "What the server is and does", "[section ...]"},
    {"time", 1, kFast, 0, 0, 0, time, "server", "2.6.0", "The server's clock", ""},
    {"lastsave", 1, kAdmin | kFast, 0, 0, 0, lastsave, "server", "1.0.0", "When the last checkpoint was made", ""},
    {"save", 1, kAdmin | kNoMulti, 0, 0, 0, save, "server", "1.0.0", "Make a checkpoint and wait for it", ""},
    {"bgsave", -1, kAdmin | kNoMulti, 0, 0, 0, bgsave, "server", "1.0.0", "Make a checkpoint in the background",
     "[SCHEDULE]"},
    {"shutdown", -1, kAdmin | kNoMulti, 0, 0, 0, shutdown, "server", "1.0.0",
     "Finish what is under way and end the server", "[NOSAVE|SAVE] [NOW] [FORCE] [ABORT]"},
    {"wait", 3, 0, 0, 0, 0, wait, "generic", "3.0.0", "Wait for replicas, of which there are none",
     "numreplicas timeout"},
    {"role", 1, kAdmin | kFast, 0, 0, 0, role, "server", "2.8.12", "Always master: there are no replicas", ""},
};

}  // namespace

std::span<const Command> admin_commands() {
  return kCommands;
}

}  // namespace kelda::server
