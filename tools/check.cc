// `kelda check`: the whole disk, read only.
#include "engine/check.h"

#include <cstdio>

#include "runtime/machine.h"
#include "tools/commands.h"
#include "tools/json.h"
#include "tools/progress.h"

namespace kelda::tools {

namespace {

void print_for_people(const std::string& name, std::uint64_t device_bytes, const engine::DiskCheck& c) {
  const auto n = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf("%s: %s, %llu pages, %llu in use, %llu free\n", name.c_str(), format_size(c.layout.device_bytes).c_str(),
              n(c.layout.page_count), n(c.used_pages), n(c.layout.page_count - c.used_pages));
  if (c.layout.grown_to(device_bytes).page_count > c.layout.page_count) {
    std::printf("the device was enlarged to %s: the next start takes the new space into use\n", format_size(device_bytes).c_str());
  }
  std::printf("log: %s, %llu batches, %llu records, %s\n", c.was_clean ? "closed cleanly" : "to be recovered at the next start",
              n(c.log_batches), n(c.log_records), format_size(c.log_bytes).c_str());
  if (!c.was_clean) {
    std::printf("recovery would undo %llu transactions and repair %llu torn pages\n", n(c.transactions_to_undo),
                n(c.torn_pages_repairable));
  }
  for (const auto& tree : c.trees) {
    std::printf("tree %s: %llu keys, height %u, %llu pages (%llu leaves), %llu overflow pages\n", tree.name.c_str(), n(tree.keys),
                tree.height, n(tree.pages), n(tree.leaves), n(tree.overflow_pages));
  }
  std::printf("%llu pages verified\n", n(c.verified_pages));
  for (const auto& problem : c.problems) std::printf("PROBLEM %s\n", problem.c_str());
  std::printf("%s\n", c.sound() ? "sound" : "NOT SOUND");
}

void print_json(const std::string& name, const engine::DiskCheck& c) {
  JsonWriter json;
  json.begin_object();
  json.field("disk", name).field("sound", c.sound()).field("clean", c.was_clean);
  json.field("device_bytes", c.layout.device_bytes).field("pages", c.layout.page_count).field("used_pages", c.used_pages);
  json.field("free_pages", c.layout.page_count - c.used_pages);
  json.field("verified_pages", c.verified_pages).field("leaked_pages", c.leaked_pages);
  json.field("log_batches", c.log_batches).field("log_records", c.log_records).field("log_bytes", c.log_bytes);
  json.field("transactions_to_undo", c.transactions_to_undo).field("torn_pages_repairable", c.torn_pages_repairable);
  json.begin_array("trees");
  for (const auto& tree : c.trees) {
    json.begin_object();
    json.field("name", tree.name).field("keys", tree.keys).field("pages", tree.pages).field("leaves", tree.leaves);
    json.field("overflow_pages", tree.overflow_pages).field("height", tree.height);
    json.end_object();
  }
  json.end_array();
  json.begin_array("problems");
  for (const auto& problem : c.problems) json.value(problem);
  json.end_array();
  json.end_object();
  std::printf("%s\n", json.text().c_str());
}

Result<bool> run(const CheckOptions& options) {
  const std::uint64_t memory_bytes = TRY(memory_to_use(options.memory_bytes, 256_MiB));
  auto device = TRY(blockdev::open(options.disk, {.read_only = true}));
  const std::uint64_t device_bytes = device->info().size_bytes;
  Result<engine::DiskCheck> checked = Code::kFailed;
  {
    Progress progress("pages");
    checked = engine::check_disk(std::move(device), {.memory_bytes = memory_bytes}, progress);
  }
  const engine::DiskCheck report = TRY(std::move(checked));
  options.json ? print_json(options.disk, report) : print_for_people(options.disk, device_bytes, report);
  return report.sound();
}

}  // namespace

int check(const CheckOptions& options) {
  Result<bool> sound = false;
  auto code = runtime::Runtime::run({.core_count = 1}, [&](runtime::Runtime&) {
    sound = run(options);
    return 0;
  });
  if (!code) sound = std::move(code).error();
  if (sound) return *sound ? 0 : kExitFailed;
  std::fprintf(stderr, "kelda check: %s\n", sound.error().to_string().c_str());
  return kExitFailed;
}

}  // namespace kelda::tools
