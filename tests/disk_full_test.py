#!/usr/bin/python3
"""A disk that fills up: writes fail with a clear error, reads and deletes go on, space that comes back is used again. And a
host whose filesystem fills up below the disk's file: nothing that was acknowledged is lost.

usage: disk_full_test.py hosted|vm [unittest arguments]
"""
import os
import pathlib
import subprocess
import sys
import unittest

import redis

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support import acceptance  # noqa: E402
from support.kelda_process import check  # noqa: E402


def value_of(i, size):
    return f"{i}:".encode() + b"v" * size


class DiskFull(acceptance.Case):
    def fill(self, client, size):
        """Writes until the disk is full; the keys that are there."""
        keys, number, refused = [], 0, []
        while not refused:
            self.assertLess(number, 100_000)
            batch = {f"k{number + i}": value_of(number + i, size) for i in range(100)}
            number += len(batch)
            replies = self.at_once(client, "set", batch.items())
            keys += [key for key, reply in zip(batch, replies) if reply is True]
            refused = [reply for reply in replies if reply is not True]
        for reply in refused:
            self.assertRegex(str(reply)[:200], "^DISKFULL .*delete keys or give Kelda a larger disk; reads and deletes go on")
        return keys

    @staticmethod
    def at_once(client, command, arguments):
        """One command for each of the arguments (tuples), sent together: their replies, errors among them."""
        pipe = client.pipeline(transaction=False)
        for each in arguments:
            getattr(pipe, command)(*each)
        return pipe.execute(raise_on_error=False)

    def compare(self, client, keys, size):
        for first in range(0, len(keys), 100):
            part = keys[first:first + 100]
            for key, value in zip(part, client.mget(part)):
                self.assertEqual(value, value_of(int(key[1:]), size), key)

    def fill_and_recover(self, size, disk_size):
        disk = self.folder / "disk"
        server = self.server(disk, create=disk_size, memory="64M")
        client = server.client()
        keys = self.fill(client, size)
        self.assertGreater(len(keys) * size, 4 << 20)
        for _ in range(5):  # it stays that way, and harms nobody
            with self.assertRaisesRegex(redis.ResponseError, "^DISKFULL"):
                client.set("one more", value_of(0, 500_000))
        with client.pipeline() as pipe:
            pipe.set(keys[0], "changed in a transaction").set("one more", value_of(0, 900_000))
            changed, refused = pipe.execute(raise_on_error=False)
        self.assertTrue(changed is True and isinstance(refused, redis.ResponseError), refused)
        # As in Redis, a command that fails in EXEC is undone alone: bring the other back.
        self.assertIsNone(client.get("one more"))
        client.set(keys[0], value_of(0, size))
        self.compare(client, keys, size)
        # Deletes go on, to the last key, and the space is usable again.
        gone, keys = keys[: len(keys) // 2], keys[len(keys) // 2:]
        self.assertEqual(client.delete(gone[0]), 1)
        self.assertEqual(self.at_once(client, "delete", [(key,) for key in gone[1:]]), [1] * (len(gone) - 1))
        back = gone[: len(gone) // 2]
        replies = self.at_once(client, "set", [(key, value_of(int(key[1:]), size)) for key in back])
        self.assertEqual(replies, [True] * len(back))
        keys += gone[: len(gone) // 2]
        self.compare(client, keys, size)
        client.close()
        # A crash while it is full, too.
        server.kill()
        code, text = check(disk)
        self.assertEqual(code, 0, text)
        server = self.server(disk, memory="64M")
        client = server.client()
        self.compare(client, keys, size)
        self.assertEqual(client.dbsize(), len(keys))
        self.fill(client, size)
        self.assertTrue(client.flushall())
        self.assertEqual(client.dbsize(), 0)
        again = self.fill(client, size)
        self.assertGreater(len(again), len(gone), "the space did not come back")
        self.at_once(client, "delete", [(key,) for key in again])
        self.assertEqual(client.dbsize(), 0)
        self.assertEqual(server.stop(), 0, server.output())
        code, text = check(disk)
        self.assertEqual(code, 0, text)

    def test_values_in_leaves(self):
        self.fill_and_recover(700, "18M")

    def test_an_enlarged_disk_is_used(self):
        disk = self.folder / "disk"
        server = self.server(disk, create="24M", memory="64M")
        keys = self.fill(server.client(), 20_000)
        for size, stop in (200, "clean"), (220, "kill"):
            # Once after a clean shutdown, once after a crash.
            if stop == "clean":
                self.assertEqual(server.stop(), 0, server.output())
            else:
                server.kill()
            os.truncate(disk, size << 20)
            self.assertRegex(check(disk)[1], f"enlarged to {size} MiB: the next start takes the new space into use")
            server = self.server(disk, memory="64M")
            client = server.client()
            self.assertRegex(server.output(), r"the disk was enlarged from \d+ MiB; the new space is in use")
            self.assertRegex(server.output(), rf"disk \S+: {size} MiB,")
            self.assertIn(f": {size} MiB,", client.execute_command("INFO").get("device", ""))
            self.compare(client, keys, 20_000)
            added = {f"k{len(keys) + i}": value_of(len(keys) + i, 20_000) for i in range(500)}
            self.assertEqual(self.at_once(client, "set", added.items()), [True] * len(added))
            keys += list(added)
            client.close()
        self.assertEqual(server.stop(), 0, server.output())
        code, text = check(disk)
        self.assertEqual(code, 0, text)
        self.assertRegex(text, "220 MiB, ")
        self.assertNotIn("enlarged", text)
        # The other way is refused: it would cut off what is there.
        os.truncate(disk, 200 << 20)
        code, text = check(disk)
        self.assertEqual(code, 1, text)
        self.assertRegex(text, "cut short; enlarge it to its old size")

    def test_values_in_overflow_pages(self):
        self.fill_and_recover(20_000, "24M")


def private_mounts():
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@unittest.skipUnless(os.getuid() == 0 and private_mounts(), "mounts a small filesystem, which only root can")
class HostFull(acceptance.Case):
    """The disk's file is sparse, and larger than what its filesystem has left."""

    def setUp(self):
        super().setUp()
        self.small = self.folder / "small"
        self.small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48M", "kelda-test", str(self.small)], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.small)], check=True)

    def test_nothing_acknowledged_is_lost(self):
        disk = self.small / "disk"
        server = self.server(disk, create="512M", memory="64M")
        client = server.client(socket_timeout=60)
        acknowledged, failure = [], None
        while failure is None:
            self.assertLess(len(acknowledged), 100_000)
            try:
                client.set(f"k{len(acknowledged)}", value_of(len(acknowledged), 60_000))
                acknowledged.append(f"k{len(acknowledged)}")
            except redis.ResponseError as error:
                failure = str(error)
        self.assertRegex(failure, "^MISCONF .*(write|device|disk)")
        self.assertGreater(len(acknowledged), 100)
        client.close()  # the server may have ended it: what it could not make durable is not answered
        client = server.client(socket_timeout=60)
        with self.assertRaisesRegex(redis.ResponseError, "^MISCONF"):
            client.set("k0", "never acknowledged")
        client.close()
        code = server.stop()
        self.assertNotEqual(code, 0, "a server whose disk failed ended as if all were well:\n" + server.output())
        self.assertNotIn("panic", server.output())
        self.assertNotIn("closed cleanly", server.output())
        # The operator makes room, and starts it again.
        subprocess.run(["mount", "-o", "remount,size=600M", str(self.small)], check=True)
        server = self.server(disk, memory="64M")
        client = server.client()
        for key in acknowledged:
            self.assertEqual(client.get(key), value_of(int(key[1:]), 60_000), key)
        client.set("k0", "again")
        self.assertEqual(server.stop(), 0, server.output())
        self.assertEqual(check(disk)[0], 0)


if __name__ == "__main__":
    if os.getuid() == 0 and "KELDA_PRIVATE_MOUNTS" not in os.environ and private_mounts():
        # What is mounted here is nobody else's, and gone with this process.
        os.environ["KELDA_PRIVATE_MOUNTS"] = "1"
        os.execvp("unshare", ["unshare", "-m", "--propagation", "private", sys.executable, *sys.argv])
    acceptance.run([DiskFull, HostFull])
