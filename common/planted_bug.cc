// The choice of the planted build, from the environment.
#include "common/planted_bug.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace kelda {
namespace {

// In the order of Bug.
constexpr std::array kNames = std::to_array<std::string_view>({
    "event_set_without_wake",
    "unpark_of_running_lost",
    "checksum_without_page_id",
    "read_not_verified",
    "read_ahead_not_verified",
    "page_write_failure_ignored",
    "failed_flush_retried",
    "slot_not_flushed",
    "slot_reused_too_early",
    "torn_page_not_restored",
    "superblock_same_copy",
    "format_keeps_old_copies",
    "frame_reused_before_epoch",
    "limbo_page_in_fresh_frame",
    "page_before_log",
    "change_during_write_lost",
    "write_back_skips_busy_pages",
    "latch_waiter_not_woken",
    "ack_before_flush",
    "hardened_one_too_high",
    "log_write_failure_ignored",
    "log_flush_retried",
    "next_leader_not_woken",
    "batch_past_ring_end",
    "batch_chain_ignored",
    "redo_skips_lsn_check",
    "undo_forgets_last_record",
    "compensation_without_undo_next",
    "redo_point_too_far",
    "undo_copies_forgotten",
    "undo_promise_not_taken",
    "reserve_not_given_back",
    "read_not_validated",
    "stale_cursor",
    "separator_too_low",
    "merge_loses_key",
    "overflow_freed_too_early",
    "space_map_bit_not_logged",
    "free_page_freed_again",
    "split_takes_its_own_page",
    "reused_page_discarded",
    "reads_foreign_leaf",
    "frees_not_finished",
    "locks_before_commit_record",
    "reader_skips_commit_lsn",
    "scan_without_lock",
    "both_readers_upgrade",
    "self_deadlock_not_seen",
    "drop_forgotten",
    "full_device_forgotten",
    "reply_before_durable",
    "multi_in_pieces",
    "exec_ignores_watch",
    "watch_looked_at_too_early",
    "watch_misses_removal",
    "expired_key_visible",
});
static_assert(kNames.size() == static_cast<std::size_t>(Bug::kCount));

// A name that is not known must not pass for a run with a bug in it.
Bug choose() {
  const char* name = std::getenv("KELDA_PLANTED_BUG");
  if (name == nullptr || *name == '\0') return Bug::kCount;
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] != name) continue;
    std::fprintf(stderr, "planted bug: %s\n", name);
    return static_cast<Bug>(i);
  }
  std::fprintf(stderr, "KELDA_PLANTED_BUG: no bug is called '%s'\n", name);
  std::_Exit(2);
}

}  // namespace

const Bug planted_bug = choose();

}  // namespace kelda
