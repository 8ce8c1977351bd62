#!/usr/bin/python3
"""A disk that fails: nothing is acknowledged from then on, everybody is told, nothing is tried again, and the next start
has what was acknowledged. A read that fails is an error reply, and no more.

usage: error_policy_test.py hosted|vm [unittest arguments]
"""
import errno
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from client_support import Connection, Error  # noqa: E402
from support import acceptance, faulty_disk  # noqa: E402
from support.kelda_process import check  # noqa: E402

DISK_BYTES = 48 << 20
SECTOR, PAGE = 512, 4096
KEYS = 300


def value_of(i, version=0):
    return f"{version}:{i}:".encode() * 200


class OnFaultyDisk(acceptance.Case):
    def setUp(self):
        super().setUp()
        if reason := faulty_disk.why_not(self.mode):
            self.skipTest(reason)
        self.disk = faulty_disk.FaultyDisk(self.mode, self.folder, DISK_BYTES)
        self.addCleanup(self.disk.stop)

    def start(self):
        server = self.disk.server(memory="64M")
        self.addCleanup(server.kill)
        server.start()
        self.disk.started()
        return server

    def connect(self, server):
        connection = Connection("127.0.0.1", server.port, timeout=30)
        self.addCleanup(connection.close)
        return connection

    def fill(self, server):
        with Connection("127.0.0.1", server.port) as connection:
            for i in range(KEYS):
                self.assertEqual(connection.ask("SET", f"key{i}", value_of(i)), b"OK")

    def stop_well(self, server):
        self.assertEqual(server.stop(), 0, server.output())
        self.disk.stopped()
        image = self.folder / "image"
        self.disk.save(image)
        code, text = check(image)
        self.assertEqual(code, 0, text)

    def assert_filled(self, connection, keys=range(KEYS)):
        for i in keys:
            self.assertEqual(connection.ask("GET", f"key{i}"), value_of(i), f"key{i}")


class FailedWrites(OnFaultyDisk):
    """The device refuses something for which it cannot be asked again."""

    def assert_told_and_ended(self, connection, whom):
        reply = connection.read().plain()
        self.assertIsInstance(reply, Error, f"{whom}: {reply!r}")
        self.assertRegex(reply, "^MISCONF the engine has stopped: .*restart", whom)
        with self.assertRaises(EOFError, msg=whom):
            connection.read()

    def fails(self, iotype, number, causes=None, message="", **rule):
        """causes: the command that meets the error; else clients write."""
        server = self.start()
        self.fill(server)
        silent, in_multi, half_way, pipeline = [self.connect(server) for _ in range(4)]
        self.assertEqual(silent.ask("GET", "key0"), value_of(0))
        self.assertEqual((in_multi.ask("MULTI"), in_multi.ask("SET", "key0", "never")), (b"OK", b"QUEUED"))
        half_way.send_raw(b"*3\r\n$3\r\nSET\r\n$4\r\nkey0\r\n$9\r\nnev")
        self.disk.inject(iotype, number, **rule)
        if causes is not None:
            with Connection("127.0.0.1", server.port) as cause:
                self.assertRegex(cause.ask(*causes), "^MISCONF ")
        # Of what arrived together nothing may be believed; what was read before is.
        pipeline.send_raw(b"".join(Connection.encode(*words) for words in (
            ("SET", "key0", "never"), ("GET", "key1"), ("SET", "new", "never"), ("GET", "key0"))))
        replies = []
        try:
            while True:
                replies.append(pipeline.read().plain())
        except EOFError:
            pass
        self.assertNotIn(b"OK", replies)
        self.assertRegex(replies[0], f"^MISCONF .*{message}")
        self.assertNotIn(b"never", replies)
        for whom, connection in {"silent": silent, "in MULTI": in_multi, "half way": half_way}.items():
            self.assert_told_and_ended(connection, whom)
        self.assertTrue(server.says("the engine has stopped: "), server.output())
        # The device is well again, but nobody knows what it holds: nothing is written or flushed any more.
        self.disk.heal()
        changes = self.disk.changes()
        later = self.connect(server)
        info = later.ask("INFO").decode()
        self.assertNotIn("health:ok", info)
        self.assertIn("aof_last_write_status:err", info)
        self.assert_filled(later, range(1, KEYS))
        self.assertRegex(later.ask("KELDA.CHECKPOINT"), "^MISCONF ")
        self.assertRegex(later.ask("SET", "key1", "never"), "^MISCONF ")
        # What was refused is not shown either: a value of before, or no answer.
        for key in ("key0", "key1", "new"):
            with Connection("127.0.0.1", server.port) as reader:
                seen = reader.ask("GET", key)
            self.assertNotEqual(seen, b"never", key)
        time.sleep(1)
        self.assertEqual(self.disk.changes(), changes, "it was tried again")
        self.assertNotEqual(server.stop(), 0, "as if all were well:\n" + server.output())
        self.assertNotIn("closed cleanly", server.lines)
        self.assertNotIn("panic", server.output())
        self.disk.stopped()
        server = self.start()
        self.assertIn("recovery: ", server.output())
        later = self.connect(server)
        self.assert_filled(later, range(1, KEYS))
        self.assertIn(later.ask("GET", "key0"), (value_of(0), b"never"))  # it was sent, and not answered
        self.assertEqual(later.ask("SET", "key0", value_of(0)), b"OK")
        self.assert_filled(later)
        self.stop_well(server)

    def test_a_flush_fails_once(self):
        self.fails("flush", errno.EIO, times=1)

    def test_a_flush_fails_without_io_uring(self):
        if self.mode == "vm":
            self.skipTest("the guest has none")
        os.environ["KELDA_IO_URING"] = "off"
        self.addCleanup(os.environ.pop, "KELDA_IO_URING")
        self.fails("flush", errno.EIO, times=1)

    def test_flushes_fail(self):
        self.fails("flush", errno.EIO, times=8)

    def test_a_write_fails_once(self):
        self.fails("write", errno.EIO, times=1)

    def test_writes_fail(self):
        self.fails("write", errno.EIO)

    def test_a_host_without_space(self):
        # virtio-blk has one code for all errors.
        self.fails("write", errno.ENOSPC, message=".*space" if self.mode == "hosted" else ".*I/O error", times=1)

    def test_a_page_cannot_be_written(self):
        """The log could go on; nothing is acknowledged all the same."""
        server = self.start()
        self.fill(server)
        image = self.folder / "image"
        self.disk.save(image)
        where = acceptance.superblock(image)
        self.assertEqual(server.stop(), 0, server.output())
        self.disk.stopped()
        # Pages are written to the double-write area first; which of its slots is next nobody can know here.
        first, count = where["double_write_offset"] // SECTOR, where["double_write_bytes"] // SECTOR
        sectors = range(first, first + count, 129 * PAGE // SECTOR)
        self.fails("write", errno.EIO, causes=("KELDA.CHECKPOINT",), sectors=sectors)

class FailedReads(OnFaultyDisk):
    def cold(self):
        """A server that has not read the keys yet."""
        server = self.start()
        self.fill(server)
        self.assertEqual(server.stop(), 0, server.output())
        self.disk.stopped()
        return self.start()

    def test_a_read_fails_once(self):
        server = self.cold()
        connection = self.connect(server)
        self.disk.inject("read", errno.EIO, times=1)
        replies = [connection.ask("GET", f"key{i}") for i in range(KEYS)]
        failed = [i for i, reply in enumerate(replies) if isinstance(reply, Error)]
        self.assertEqual(len(failed), 1, [replies[i] for i in failed])
        self.assertRegex(replies[failed[0]], "^IOERR ")
        self.assert_filled(connection)
        self.assertIn("health:ok", connection.ask("INFO").decode())
        self.assertEqual(connection.ask("SET", "key0", value_of(0)), b"OK")
        self.disk.heal()
        self.stop_well(server)

    def test_reads_fail_for_a_while(self):
        server = self.cold()
        connection, other = self.connect(server), self.connect(server)
        self.assertEqual(connection.ask("GET", "key0"), value_of(0))
        self.disk.inject("read", errno.EIO)
        replies = [connection.ask("GET", f"key{i}") for i in range(KEYS)]
        self.assertEqual(replies[0], value_of(0), "what is in memory needs no disk")
        failed = [i for i, reply in enumerate(replies) if isinstance(reply, Error)]
        self.assertGreater(len(failed), KEYS // 2)
        self.assertRegex(replies[failed[0]], "^IOERR ")
        # A write that must read first is refused, alone; others are carried out and durable.
        self.assertRegex(connection.ask("SET", f"key{failed[0]}", "never"), "^IOERR ")
        self.assertEqual(connection.ask("SET", "key0", value_of(0, 1)), b"OK")
        # In EXEC it is undone alone, as every command that fails there.
        for words in (("MULTI",), ("SET", f"key{failed[-1]}", "never"), ("SET", "key0", value_of(0, 2))):
            connection.ask(*words)
        refused, done = connection.ask("EXEC")
        self.assertRegex(refused, "^IOERR ")
        self.assertEqual(done, b"OK")
        self.assertEqual(other.ask("PING"), b"PONG")
        self.disk.heal()
        self.assertEqual(connection.ask("GET", "key0"), value_of(0, 2))
        self.assert_filled(other, range(1, KEYS))
        self.assertIn("health:ok", other.ask("INFO").decode())
        self.stop_well(server)


if __name__ == "__main__":
    acceptance.run([FailedWrites, FailedReads])
