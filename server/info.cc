#include "server/info.h"

#include <unistd.h>

#include <algorithm>

#include <fmt/format.h>

#include "server/info_sections.h"
#include "server/text.h"

namespace kelda::server {

namespace {

using Out = InfoOut;

void server_section(const InfoSource& source, Out out) {
  const ServerState& server = source.server;
  const std::string& address = server.listen_address;
  const std::uint64_t uptime_s = source.uptime_s();
  fmt::format_to(out,
                 "redis_version:{}\r\nredis_mode:standalone\r\nkelda_version:{}\r\nos:{}\r\narch_bits:64\r\n"
                 "process_id:{}\r\nprocess_supervised:no\r\nrun_id:{}\r\ntcp_port:{}\r\nserver_time_usec:{}\r\nuptime_in_seconds:{}\r\n"
                 "uptime_in_days:{}\r\nio_threads_active:{}\r\n",
                 kRedisVersion, KELDA_VERSION, server.options.platform, ::getpid(), server.run_id,
                 address.substr(address.rfind(':') + 1), runtime::wall_clock_us(), uptime_s, uptime_s / 86400,
                 server.core_count());
}

void clients_section(const InfoSource& source, Out out) {
  ServerState& server = source.server;
  std::uint64_t input_bytes = 0, output_bytes = 0;
  for (const auto& info : server.clients.snapshot()) {
    input_bytes = std::max(input_bytes, info->input_bytes.load(std::memory_order_relaxed) +
                                            info->input_free_bytes.load(std::memory_order_relaxed));
    output_bytes = std::max(output_bytes, info->reply_peak_bytes.load(std::memory_order_relaxed));
  }
  // No cluster, no tracking, and no command that blocks.
  fmt::format_to(out,
                 "connected_clients:{}\r\ncluster_connections:0\r\nmaxclients:{}\r\n"
                 "client_recent_max_input_buffer:{}\r\nclient_recent_max_output_buffer:{}\r\nblocked_clients:0\r\n"
                 "tracking_clients:0\r\nclients_in_timeout_table:0\r\nwatched_keys:{}\r\n",
                 server.clients.count(), server.config.max_clients.load(), input_bytes, output_bytes,
                 server.watches.watches());
}

void persistence_section(const InfoSource& source, Out out) {
  ServerState& server = source.server;
  const std::int64_t began_ms = server.checkpoint_began_ms.load(), took_ms = server.last_checkpoint_took_ms.load();
  // A checkpoint takes the place of a snapshot.
  fmt::format_to(out,
                 "loading:0\r\nasync_loading:0\r\nrdb_bgsave_in_progress:{}\r\nrdb_last_save_time:{}\r\n"
                 "rdb_last_bgsave_status:{}\r\nrdb_last_bgsave_time_sec:{}\r\nrdb_current_bgsave_time_sec:{}\r\n"
                 "rdb_saves:{}\r\nrdb_last_cow_size:0\r\n",
                 server.checkpoint_running.load() ? 1 : 0, server.last_checkpoint_ms.load() / 1000,
                 server.last_checkpoint_ok.load() ? "ok" : "err", took_ms < 0 ? -1 : took_ms / 1000,
                 began_ms < 0 ? -1 : std::max<std::int64_t>(source.now_ms - began_ms, 0) / 1000, server.checkpoints.load());
  // In Redis's terms the log is an append-only file that is flushed before the reply and never rewritten.
  fmt::format_to(out,
                 "aof_enabled:1\r\naof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0\r\n"
                 "aof_last_rewrite_time_sec:-1\r\naof_current_rewrite_time_sec:-1\r\naof_last_bgrewrite_status:ok\r\n"
                 "aof_last_write_status:{}\r\naof_last_cow_size:0\r\naof_current_size:{}\r\naof_base_size:0\r\n"
                 "aof_pending_rewrite:0\r\naof_pending_bio_fsync:0\r\naof_delayed_fsync:0\r\n"
                 "module_fork_in_progress:0\r\nmodule_fork_last_cow_size:0\r\n",
                 server.database.health() ? "ok" : "err", source.engine.log_used_bytes);
}

void replication_section(const InfoSource&, Out out) {
  fmt::format_to(out,
                 "role:master\r\nconnected_slaves:0\r\nmaster_failover_state:no-failover\r\nmaster_repl_offset:0\r\n"
                 "second_repl_offset:-1\r\nrepl_backlog_active:0\r\nrepl_backlog_size:0\r\n"
                 "repl_backlog_first_byte_offset:0\r\nrepl_backlog_histlen:0\r\n");
}

void cluster_section(const InfoSource&, Out out) {
  fmt::format_to(out, "cluster_enabled:0\r\n");
}

void keyspace_section(const InfoSource& source, Out out) {
  const Keyspace& keyspace = source.server.keyspace;
  for (std::uint32_t db = 0; db < kDatabaseCount; ++db) {
    const std::uint64_t keys = keyspace.key_count(db);
    if (keys == 0) continue;
    fmt::format_to(out, "db{}:keys={},expires={},avg_ttl=0\r\n", db, keys, std::min(keyspace.expiry_count(db), keys));
  }
}

void kelda_durability(const InfoSource& source, Out out) {
  const ServerOptions& options = source.server.options;
  const auto health = source.server.database.health();
  const bool durable = options.durability == DurabilityMode::kFlush;
  fmt::format_to(out, "platform:{}\r\ndurability:{}\r\ndurability_truth:{}\r\nhealth:{}\r\ndevice:{}\r\n",
                 options.platform, durable ? "flush" : "none",
                 durable ? "a reply is sent after the log is on the device and the device was flushed"
                         : "the device is never flushed: a power cut can lose acknowledged writes",
                 health ? "ok" : health.error().to_string(), options.device_text);
  const OpenReport& report = options.open_report;
  fmt::format_to(out,
                 "recovery_clean:{}\r\nrecovery_log_bytes:{}\r\nrecovery_records:{}\r\nrecovery_us:{}\r\nrecovery_"
                 "pages_repaired:{}\r\n",
                 report.was_clean ? 1 : 0, report.log_bytes, report.records, report.duration_us, report.pages_repaired);
}

void kelda_section(const InfoSource& source, Out out) {
  const DatabaseStats& s = source.engine;
  kelda_durability(source, out);
  fmt::format_to(out, "commits:{}\r\nrollbacks:{}\r\nconflicts:{}\r\nlock_waits:{}\r\ntransaction_retries:{}\r\n",
                 s.commits, s.rollbacks, s.conflicts, s.lock_waits, source.total(Counter::kTransactionRetries));
  fmt::format_to(
      out,
      "pool_frames:{}\r\npool_free:{}\r\npool_resident:{}\r\npool_dirty:{}\r\npool_misses:{}\r\npool_evictions:{}\r\n",
      s.pool_frames, s.pool_free, s.pool_resident, s.pool_dirty, s.pool_misses, s.pool_evictions);
  fmt::format_to(
      out,
      "log_bytes_appended:{}\r\nlog_batches:{}\r\nlog_used_bytes:{}\r\nlog_capacity_bytes:{}\r\nlog_next_lsn:{}\r\n"
      "log_durable_lsn:{}\r\n",
      s.log_bytes_appended, s.log_batches, s.log_used_bytes, s.log_capacity_bytes, s.log_next.value,
      s.log_durable.value);
  fmt::format_to(
      out,
      "device_reads:{}\r\ndevice_writes:{}\r\ndevice_flushes:{}\r\ndevice_read_bytes:{}\r\ndevice_write_bytes:{}\r\n"
      "pages_total:{}\r\npages_used:{}\r\nscan_cursors:{}\r\n",
      s.device_reads, s.device_writes, s.device_flushes, s.device_read_bytes, s.device_write_bytes, s.page_count,
      s.used_pages, source.server.cursors.size());
}

void scrub_section(const InfoSource& source, Out out) {
  for (const auto& [name, value] : scrub_fields(source.server.database.scrub_status())) {
    fmt::format_to(out, "scrub_{}:{}\r\n", name, value);
  }
}

struct Section {
  const char* title;
  void (*write)(const InfoSource&, Out);
  bool by_default = true;
};

constexpr Section kSections[] = {
    {"Server", server_section},
    {"Clients", clients_section},
    {"Memory", memory_section},
    {"Persistence", persistence_section},
    {"Stats", stats_section},
    {"Replication", replication_section},
    {"CPU", cpu_section},
    {"Commandstats", commandstats_section, false},
    {"Errorstats", errorstats_section},
    {"Cluster", cluster_section},
    {"Kelda", kelda_section},
    {"Scrub", scrub_section},
    {"Keyspace", keyspace_section},
};

}  // namespace

std::vector<std::pair<std::string, std::string>> scrub_fields(const ScrubStatus& s) {
  const std::uint64_t done = std::min(s.pages_checked, s.pages_total);
  const std::uint64_t percent = !s.running && s.last_run_complete ? 100 : s.pages_total == 0 ? 0 : done * 100 / s.pages_total;
  return {
      {"running", s.running ? "1" : "0"},
      {"interval_seconds", std::to_string(s.interval_s)},
      {"rate_bytes_per_sec", std::to_string(s.bytes_per_s)},
      {"runs", std::to_string(s.runs)},
      {"last_start", std::to_string(s.last_start_us / 1'000'000)},
      {"last_end", std::to_string(s.last_end_us / 1'000'000)},
      {"last_complete", s.last_run_complete ? "1" : "0"},
      {"progress_percent", std::to_string(percent)},
      {"pages_checked", std::to_string(s.pages_checked)},
      {"pages_unsettled", std::to_string(s.pages_unsettled)},
      {"errors", std::to_string(s.errors)},
      {"repaired", std::to_string(s.repaired)},
      {"total_errors", std::to_string(s.total_errors)},
      {"total_repaired", std::to_string(s.total_repaired)},
      {"last_error_page", std::to_string(s.last_error_page)},
      {"last_error", s.last_error},
  };
}

std::uint32_t info_sections(std::string_view word) {
  std::uint32_t sections = 0;
  for (std::size_t i = 0; i < std::size(kSections); ++i) {
    const bool wanted = equals_ignoring_case(word, kSections[i].title) || equals_ignoring_case(word, "all") ||
                        equals_ignoring_case(word, "everything") ||
                        (kSections[i].by_default && equals_ignoring_case(word, "default"));
    if (wanted) sections |= 1u << i;
  }
  return sections;
}

std::string info_text(ServerState& server, std::int64_t now_ms, std::uint32_t sections) {
  const InfoSource source{server, now_ms, server.database.stats()};
  std::string text;
  for (std::size_t i = 0; i < std::size(kSections); ++i) {
    if ((sections & 1u << i) == 0) continue;
    if (!text.empty()) text += "\r\n";
    fmt::format_to(std::back_inserter(text), "# {}\r\n", kSections[i].title);
    kSections[i].write(source, std::back_inserter(text));
  }
  return text;
}

}  // namespace kelda::server
