// INFO: memory, stats, cpu, commandstats, errorstats.
#include <sys/resource.h>

#include <fmt/format.h>

#include "runtime/machine.h"
#include "server/info_sections.h"
#include "server/text.h"

namespace kelda::server {

void memory_section(const InfoSource& source, InfoOut out) {
  const std::uint64_t used = (source.engine.pool_frames - source.engine.pool_free) * kPageBytes;
  const std::uint64_t bound = source.server.options.memory_bytes;
  const runtime::MachineInfo machine = runtime::machine_info();
  const double ratio = used == 0 ? 0 : static_cast<double>(machine.resident_bytes) / static_cast<double>(used);
  fmt::format_to(out,
                 "used_memory:{}\r\nused_memory_human:{}\r\nused_memory_rss:{}\r\nused_memory_rss_human:{}\r\n"
                 "total_system_memory:{}\r\ntotal_system_memory_human:{}\r\nmaxmemory:{}\r\nmaxmemory_human:{}\r\n"
                 "maxmemory_policy:noeviction\r\nmem_fragmentation_ratio:{:.2f}\r\nmem_fragmentation_bytes:{}\r\n",
                 used, human_bytes(used), machine.resident_bytes, human_bytes(machine.resident_bytes),
                 machine.memory_bytes, human_bytes(machine.memory_bytes), bound, human_bytes(bound), ratio,
                 static_cast<std::int64_t>(machine.resident_bytes) - static_cast<std::int64_t>(used));
  // No scripts, no replicas, no eviction, no defragmentation.
  fmt::format_to(out,
                 "used_memory_lua:0\r\nused_memory_vm_eval:0\r\nused_memory_scripts_eval:0\r\n"
                 "used_memory_vm_functions:0\r\nused_memory_functions:0\r\nused_memory_scripts:0\r\n"
                 "number_of_cached_scripts:0\r\nnumber_of_functions:0\r\nnumber_of_libraries:0\r\n"
                 "mem_not_counted_for_evict:0\r\nmem_replication_backlog:0\r\nmem_total_replication_buffers:0\r\n"
                 "mem_clients_slaves:0\r\nmem_clients_normal:{}\r\nmem_clients_limit:{}\r\nmem_cluster_links:0\r\n"
                 "mem_allocator:libc\r\nactive_defrag_running:0\r\n",
                 source.server.buffers.used_bytes(), source.server.buffers.limit_bytes());
}

void stats_section(const InfoSource& source, InfoOut out) {
  const std::uint64_t uptime_s = std::max<std::uint64_t>(source.uptime_s(), 1);
  const Rates& rates = source.server.rates;
  fmt::format_to(out,
                 "total_connections_received:{}\r\ntotal_commands_processed:{}\r\ninstantaneous_ops_per_sec:{}\r\n"
                 "average_ops_per_sec:{}\r\ntotal_net_input_bytes:{}\r\ntotal_net_output_bytes:{}\r\n"
                 "instantaneous_input_kbps:{:.2f}\r\ninstantaneous_output_kbps:{:.2f}\r\nrejected_connections:{}\r\n",
                 source.total(Counter::kConnections), source.total(Counter::kCommands), rates.commands(),
                 source.total(Counter::kCommands) / uptime_s, source.total(Counter::kInputBytes),
                 source.total(Counter::kOutputBytes), static_cast<double>(rates.input_bytes()) / 1024,
                 static_cast<double>(rates.output_bytes()) / 1024, source.total(Counter::kRejectedConnections));
  fmt::format_to(out,
                 "expired_keys:{}\r\nexpired_time_cap_reached_count:0\r\nevicted_keys:0\r\nevicted_clients:0\r\n"
                 "total_eviction_exceeded_time:0\r\ncurrent_eviction_exceeded_time:0\r\nkeyspace_hits:{}\r\n"
                 "keyspace_misses:{}\r\ntotal_error_replies:{}\r\ntotal_reads_processed:{}\r\n"
                 "total_writes_processed:{}\r\nclient_output_timeouts:{}\r\n",
                 source.total(Counter::kExpired), source.total(Counter::kHits), source.total(Counter::kMisses),
                 source.total(Counter::kErrorReplies), source.total(Counter::kReads), source.total(Counter::kWrites),
                 source.total(Counter::kOutputTimeouts));
  // No replicas, no pub/sub, no forks, no tracking, no migration, no defragmentation.
  fmt::format_to(out,
                 "total_net_repl_input_bytes:0\r\ntotal_net_repl_output_bytes:0\r\nsync_full:0\r\n"
                 "sync_partial_ok:0\r\nsync_partial_err:0\r\npubsub_channels:0\r\npubsub_patterns:0\r\n"
                 "latest_fork_usec:0\r\ntotal_forks:0\r\nmigrate_cached_sockets:0\r\nslave_expires_tracked_keys:0\r\n"
                 "active_defrag_hits:0\r\nactive_defrag_misses:0\r\nactive_defrag_key_hits:0\r\n"
                 "active_defrag_key_misses:0\r\ntracking_total_keys:0\r\ntracking_total_items:0\r\n"
                 "tracking_total_prefixes:0\r\n");
}

void cpu_section(const InfoSource& source, InfoOut out) {
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  rusage use{};
  if (::getrusage(RUSAGE_SELF, &use) == 0) {
    fmt::format_to(out, "used_cpu_sys:{:.6f}\r\nused_cpu_user:{:.6f}\r\n", seconds(use.ru_stime), seconds(use.ru_utime));
  }
  // No process is ever forked. The last is the time that the cores were not asleep.
  fmt::format_to(out,
                 "used_cpu_sys_children:0.000000\r\nused_cpu_user_children:0.000000\r\ncores:{}\r\n"
                 "cores_busy_seconds:{:.3f}\r\n",
                 source.server.core_count(), static_cast<double>(source.server.busy_ns()) / 1e9);
}

// `usec` is the time from one request's end to the next one's among those that came together: with the parsing, without
// the wait for the log, which they share.
void commandstats_section(const InfoSource& source, InfoOut out) {
  const CommandTable& commands = source.server.commands;
  for (std::size_t i = 0; i < commands.numbers(); ++i) {
    const CommandStats::Counts counts = source.server.command_stats.counts(i);
    if (counts.calls + counts.rejected == 0) continue;
    const double usec = static_cast<double>(counts.time_ns) / 1000;
    fmt::format_to(out, "cmdstat_{}:calls={},usec={:.0f},usec_per_call={:.2f},rejected_calls={},failed_calls={}\r\n",
                   commands.numbered(i).name, counts.calls, usec,
                   counts.calls == 0 ? 0 : usec / static_cast<double>(counts.calls), counts.rejected, counts.failed);
  }
}

void errorstats_section(const InfoSource& source, InfoOut out) {
  for (std::size_t i = 0; i < CommandStats::kErrors.size(); ++i) {
    const std::uint64_t count = source.server.command_stats.errors(i);
    if (count > 0) fmt::format_to(out, "errorstat_{}:count={}\r\n", CommandStats::kErrors[i], count);
  }
}

}  // namespace kelda::server
