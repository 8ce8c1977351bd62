#!/usr/bin/env python3
"""Runs the tests against each planted bug (common/planted_bug.h): every one must be caught.

    planted_bugs.py [BUILD] [--bug NAME ...] [--json] [--markdown]
    planted_bugs.py --absent PROGRAM ...    # 1 if a program contains anything of the planted bugs

BUILD is the folder of the preset `planted`, built; without it, it is built first. First the tests that this uses run
without a bug and must pass. Then, for each bug, its tests run in turn, the cheapest first, until one fails, crashes, or
does not end in time. Exits with 1 if a bug is not caught, with 2 if the list here is not that of the program.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TIME_LIMIT_S = 60  # for tests that end within a few seconds: a lost wake-up shows as a test that never ends

CRASH = "crash_every_io"
# Bug: the suites and filters that should catch it, cheapest first.
BUGS = {
    "event_set_without_wake": [("runtime", "Sync.EventsWakeAllAndTimeOut"), (CRASH, "Complete/*/commit")],
    "unpark_of_running_lost": [("runtime", "Fiber.UnparkBeforeParkIsNotLost")],
    "checksum_without_page_id": [("disk", "PageStore.*")],
    "read_not_verified": [("disk", "PageStore.*")],
    "read_ahead_not_verified": [("disk", "PageStore.*")],
    "page_write_failure_ignored": [("disk", "PageStore.*")],
    "failed_flush_retried": [("disk", "PageStore.*")],
    "slot_not_flushed": [(CRASH, "Complete/*/doublewrite"), ("disk", "PageStoreCrash.*")],
    "slot_reused_too_early": [("disk", "SlotRing.*"), ("disk", "PageStoreCrash.*")],
    "torn_page_not_restored": [(CRASH, "Complete/*/doublewrite"), ("disk", "PageStoreCrash.*")],
    "superblock_same_copy": [(CRASH, "Complete/*/checkpoint"), ("disk", "Superblock.ACheckpoint*")],
    "format_keeps_old_copies": [("disk", "Superblock.*Format*")],
    "frame_reused_before_epoch": [("bufferpool", "PoolLimbo.Frames*"), ("bufferpool", "PoolStress.*")],
    "limbo_page_in_fresh_frame": [("bufferpool", "PoolLimbo.AMiss*")],
    "page_before_log": [("bufferpool", "Pool.*")],
    "change_during_write_lost": [("bufferpool", "PoolWriteBack.*"), ("bufferpool", "PoolCrash.*:PoolStress.*")],
    "write_back_skips_busy_pages": [("bufferpool", "PoolWriteBack.*")],
    "latch_waiter_not_woken": [("bufferpool", "PoolWait.*")],
    "ack_before_flush": [(CRASH, "Complete/*/commit")],
    "hardened_one_too_high": [("wal", "WalFlush.ARecord*"), ("wal", "*")],
    "log_write_failure_ignored": [("wal", "WalFlush.AF*"), (CRASH, "Complete/*/commit")],
    "log_flush_retried": [("wal", "WalFlush.AF*")],
    "next_leader_not_woken": [("wal", "WalSim.*"), ("wal", "WalFlush.*")],
    "batch_past_ring_end": [("wal", "WalRing.*")],
    "batch_chain_ignored": [("wal", "WalDamage.*")],
    "redo_skips_lsn_check": [(CRASH, "Complete/*/checkpoint"), ("btree", "BtreeCrash.*")],
    "undo_forgets_last_record": [(CRASH, "Complete/*/largetransactions"), ("wal", "WalCrash.*")],
    "compensation_without_undo_next": [(CRASH, "Complete/*/rollback"), ("wal", "WalRecord.*:UndoSet*")],
    "redo_point_too_far": [(CRASH, "Complete/*/checkpoint"), ("wal", "WalCommit.*")],
    "undo_copies_forgotten": [(CRASH, "Complete/*/checkpoint"), ("wal", "WalCrash.*")],
    "undo_promise_not_taken": [("wal", "WalRing.*")],
    "reserve_not_given_back": [("wal", "WalRing.*"), ("wal", "WalFlush.*")],
    "read_not_validated": [("btree", "BtreeConcurrency.AReader*")],
    "stale_cursor": [("btree", "BtreeModel.ACursor*")],
    "separator_too_low": [("btree", "BtreeNode.*"), ("btree", "BtreeModel.SmallValues")],
    "merge_loses_key": [("btree", "BtreeNode.*"), (CRASH, "Complete/*/merge")],
    "overflow_freed_too_early": [(CRASH, "Complete/*/overflowvalues"), ("btree", "BtreeModel.OverflowValues")],
    "space_map_bit_not_logged": [(CRASH, "Complete/*/leafsplit"), ("btree", "BtreeCrash.*")],
    "free_page_freed_again": [("btree", "BtreeDamage.*")],
    "split_takes_its_own_page": [("btree", "BtreeDamage.*")],
    "reused_page_discarded": [("btree", "BtreeSpace.*Discard*"), (CRASH, "Complete/*/discard")],
    "reads_foreign_leaf": [("btree", "BtreeDamage.*")],
    "frees_not_finished": [("btree", "BtreeSpace.Frees*")],
    "locks_before_commit_record": [("engine", "Engine.*")],
    "reader_skips_commit_lsn": [("engine", "Engine.*")],
    "scan_without_lock": [("isolation", "IsolationEngine.Simulated*")],
    "both_readers_upgrade": [("engine", "Locks.*")],
    "self_deadlock_not_seen": [("engine", "LockWaits.*")],
    "drop_forgotten": [(CRASH, "Complete/*/clearanddrop")],
    "full_device_forgotten": [("net", "Frames.*")],
    "reply_before_durable": [("server", "Keys.*")],
    "multi_in_pieces": [("server", "ServerEngine.AMulti*"), ("isolation", "IsolationResp.*")],
    "exec_ignores_watch": [("isolation", "IsolationResp.*")],
    "watch_looked_at_too_early": [("isolation", "IsolationResp.*")],
    "watch_misses_removal": [("server", "Keys.*")],
    "expired_key_visible": [("server", "Keys.*")],
}


def names_in_program():
    text = (ROOT / "common/planted_bug.cc").read_text()
    return re.findall(r'^    "(\w+)",$', text, re.M)


def mistakes():
    """What each bug is, in the words of the header."""
    lines = re.findall(r"^  k(\w+), +// (.*)$", (ROOT / "common/planted_bug.h").read_text(), re.M)
    return {re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower(): text for name, text in lines}


def run(build, bug, suite, pattern):
    """(exit code or None at the time limit, output, seconds)"""
    command = [str(build / "tests" / f"{suite}_test"), f"--gtest_filter={pattern}", "--gtest_fail_fast"]
    environment = {k: v for k, v in os.environ.items() if k != "KELDA_PLANTED_BUG"}
    if bug:
        environment["KELDA_PLANTED_BUG"] = bug
    start = time.monotonic()
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIME_LIMIT_S)
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, output = None, late.stdout or b""
    return code, output.decode(errors="replace"), time.monotonic() - start


def build_preset():
    suites = sorted({f"{suite}_test" for tests in BUGS.values() for suite, _ in tests})
    subprocess.run(["cmake", "--preset", "planted"], cwd=ROOT, check=True, stdout=sys.stderr)
    subprocess.run(["cmake", "--build", "--preset", "planted", "--target", *suites], cwd=ROOT, check=True, stdout=sys.stderr)
    return ROOT / "build-planted"


def traces(program):
    """Symbols and strings of planted bugs in a program; prints them."""
    content = program.read_bytes()
    found = [word for word in ["planted_bug", "KELDA_PLANTED_BUG", *names_in_program()] if word.encode() in content]
    print(f"{program}: {' '.join(found) or 'nothing of the planted bugs'}")
    return found


def fail(message):
    print(message, file=sys.stderr)
    sys.exit(2)


def verdict(code, output):
    """How a run with a bug ended: (test, how), or None if nothing was noticed."""
    if code == 0:
        return None
    started = re.findall(r"^\[ RUN      \] (\S+)", output, re.M)
    failed = re.findall(r"^\[  FAILED  \] ([\w/.]+)[,\s]", output, re.M)
    if not started:
        fail(f"the program did not come to its tests:\n{output}")
    if code is None:
        return started[-1], "does not end"
    if code == 1 and failed:
        return failed[0], "fails"
    return started[-1], "stops" if "assertion" in output.lower() else "crashes"


def check_without_bug(build, bugs, say):
    for suite, pattern in sorted({test for bug in bugs for test in BUGS[bug]}):
        code, output, seconds = run(build, None, suite, pattern)
        if code != 0 or "[  PASSED  ] 0 tests" in output:
            say(output[-3000:])
            fail(f"without a bug: {suite} {pattern} does not pass, or is empty")
        say(f"no bug: {suite} {pattern} passes, {seconds:.1f} s")


def catch(build, bug):
    for suite, pattern in BUGS[bug]:
        code, output, seconds = run(build, bug, suite, pattern)
        if f"planted bug: {bug}" not in output:
            fail(f"{suite} knows nothing of the bug {bug}: is {build} built with the preset `planted`?")
        if found := verdict(code, output):
            return {"bug": bug, "test": found[0], "how": found[1], "seconds": round(seconds, 1)}
    return {"bug": bug, "test": None, "how": "not caught", "seconds": 0}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path, nargs="?")
    parser.add_argument("--absent", type=pathlib.Path, nargs="+", metavar="PROGRAM")
    parser.add_argument("--bug", nargs="+", default=[], choices=sorted(BUGS), metavar="NAME")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true", help="the table of docs/trust.md")
    options = parser.parse_args()
    if options.absent:
        return 1 if any([traces(program) for program in options.absent]) else 0
    if names_in_program() != list(BUGS):
        fail("the bugs here and in common/planted_bug.cc differ: " + " ".join(set(names_in_program()) ^ set(BUGS)))

    def say(text):
        print(text, file=sys.stderr if options.json or options.markdown else sys.stdout, flush=True)

    build = options.build.resolve() if options.build else build_preset()
    bugs = options.bug or list(BUGS)
    check_without_bug(build, bugs, say)
    rows = []
    for bug in bugs:
        rows.append(catch(build, bug))
        row = rows[-1]
        say(f"{row['bug']:32} {row['seconds']:6.1f} s  {row['test'] or '-'} ({row['how']})")
    uncaught = [row["bug"] for row in rows if row["test"] is None]
    if options.json:
        print(json.dumps(rows, indent=1))
    if options.markdown:
        for row in rows:
            print(f"| {row['bug']} | {mistakes()[row['bug']]} | {row['test']} | {row['how']} | {row['seconds']:.1f} |")
    say(f"{len(rows) - len(uncaught)} of {len(rows)} bugs caught" + "".join(f"\nNOT CAUGHT: {bug}" for bug in uncaught))
    return 1 if uncaught else 0


if __name__ == "__main__":
    sys.exit(main())
