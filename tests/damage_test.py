#!/usr/bin/python3
"""Flipped bytes: `kelda check` names the damage, and the read that meets it gets an error, not a crash and not a wrong value.

usage: damage_test.py hosted|vm [unittest arguments]
"""
import pathlib
import random
import re
import struct
import sys

import redis

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support import acceptance  # noqa: E402
from support.kelda_process import check  # noqa: E402

KEYS = 12000
PAGE = 4096
SLOT_PAGES = 129


def value_of(i):
    return f"value {i} ".encode() * 20


def flip(disk, offset):
    with open(disk, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


class Damage(acceptance.Case):
    def fill(self, memory="64M"):
        """A disk with many leaves; the server that runs on it."""
        self.disk = self.folder / "disk"
        server = self.server(self.disk, create="64M", memory=memory)
        client = server.client()
        for first in range(0, KEYS, 1000):
            client.mset({f"key{i:05}": value_of(i) for i in range(first, first + 1000)})
        client.close()
        return server

    def closed(self):
        server = self.fill()
        self.assertEqual(server.stop(), 0, server.output())
        self.assertEqual(check(self.disk)[0], 0)
        self.where = acceptance.superblock(self.disk)

    def assert_named(self, pattern):
        before = self.disk.read_bytes()
        code, text = check(self.disk)
        self.assertEqual(code, 1, text)
        self.assertRegex(text, pattern)
        self.assertNotIn("panic", text)
        if self.mode == "vm":
            code, text = self.kelda("vm", "--disk", self.disk, "--", "check", "/dev/vda")
            self.assertEqual(code, 1, text)
            self.assertRegex(text, pattern)
        self.assertTrue(self.disk.read_bytes() == before, "check changed the disk")

    def repairable_pages(self, file):
        """Those with a copy in the double-write area, from which the next start may restore them."""
        found = set()
        for at in range(0, self.where["double_write_bytes"], SLOT_PAGES * PAGE):
            file.seek(self.where["double_write_offset"] + at)
            header = file.read(PAGE)
            if header[:8] == b"KELDADW1":
                found.update(struct.unpack_from("<Q", header, 40 + 16 * i)[0] for i in range(struct.unpack_from("<I", header, 32)[0]))
        return found

    def leaf_pages(self):
        """Pages of a tree (type 2) with many of our values, and with no other copy."""
        found = []
        with open(self.disk, "rb") as file:
            repairable = self.repairable_pages(file)
            file.seek(self.where["pages_offset"])
            for page in range(min(self.where["page_count"], 4000)):
                data = file.read(PAGE)
                if data[24] == 2 and struct.unpack_from("<Q", data, 8)[0] == page and data.count(b"value ") > 40:
                    found.append(page)
        return [page for page in found if page not in repairable]

    def test_one_superblock_copy(self):
        self.closed()
        flip(self.disk, acceptance.SUPERBLOCK_COPIES[self.where["copy"]] + 300)
        self.assert_named("PROBLEM superblock: one of its two copies does not verify")
        server = self.server(self.disk)
        self.assertEqual(server.client().get("key00007"), value_of(7))
        self.assertEqual(server.stop(), 0, server.output())
        code, text = check(self.disk)
        self.assertEqual(code, 0, "opening the disk did not renew the copy:\n" + text)

    def test_both_superblock_copies(self):
        self.closed()
        for place in acceptance.SUPERBLOCK_COPIES:
            flip(self.disk, place + 300)
        self.assert_named("both copies of the superblock are damaged: restore from a backup")
        self.assert_refused(["both copies", "restore from a backup"], "--disk", str(self.disk), unchanged=[self.disk])
        self.assert_refused(["both copies", "restore from a backup"], "--disk", str(self.disk), "--create", "64M",
                            unchanged=[self.disk])

    def test_log_in_the_middle(self):
        server = self.fill()
        client = server.client()
        for i in range(60):  # a batch each
            client.set(f"later{i}", "x" * 100)
        server.kill()
        where = acceptance.superblock(self.disk)
        # Batch headers carry "KWAL" at 8; those of this log, in order of their sequence.
        with open(self.disk, "rb") as file:
            file.seek(where["log_offset"])
            log = file.read(where["log_bytes"])
        batches = sorted((struct.unpack_from("<Q", log, at + 16)[0], at) for at in range(0, len(log), PAGE)
                         if log[at + 8:at + 12] == b"KWAL" and struct.unpack_from("<Q", log, at + 24)[0] >= where["log_position"])
        self.assertGreater(len(batches), 20)
        sequence, at = batches[len(batches) // 2]
        flip(self.disk, where["log_offset"] + at + 120)
        self.assert_named(rf"PROBLEM log: .*\b{sequence}\b")
        self.assert_refused(["damaged", str(sequence)], "--disk", str(self.disk), unchanged=[self.disk])

    def test_page_that_is_read(self):
        self.closed()
        page = random.Random(7).choice(self.leaf_pages())
        flip(self.disk, self.where["pages_offset"] + page * PAGE + 2000)
        self.assert_named(rf"PROBLEM page {page}: ")
        server = self.server(self.disk, memory="64M")
        client = server.client()
        failed = []
        for i in range(KEYS):
            try:
                self.assertEqual(client.get(f"key{i:05}"), value_of(i))
            except redis.ResponseError as error:
                self.assertRegex(str(error), rf"CORRUPT.*\b{page}\b")
                failed.append(i)
        self.assertGreater(len(failed), 1)
        self.assertLess(len(failed), 50)
        # Scans meet it too; nothing invents data, and other keys can be written.
        with self.assertRaisesRegex(redis.ResponseError, "CORRUPT"):
            client.execute_command("KELDA.RANGE", "key", "kez")
        with self.assertRaisesRegex(redis.ResponseError, "CORRUPT"):
            client.set(f"key{failed[0]:05}", "new")
        with self.assertRaisesRegex(redis.ResponseError, "CORRUPT"):
            client.delete(f"key{failed[0]:05}")
        good = next(i for i in range(KEYS) if abs(i - failed[0]) > 200)
        self.assertTrue(client.set(f"key{good:05}", "new"))
        self.assertEqual(client.get(f"key{good:05}"), b"new")
        client.close()
        server.stop()
        self.assertNotIn("panic", server.output())
        self.assert_named(rf"PROBLEM page {page}: ")

    def test_space_map(self):
        self.closed()
        flip(self.disk, self.where["pages_offset"] + 64 + 100)
        self.assert_named(r"PROBLEM .*page 0\b")
        code, text = self.kelda(*self.start_arguments("--disk", str(self.disk)))
        self.assertEqual(code, 1, text)
        self.assertRegex(text, r"page 0\b")


if __name__ == "__main__":
    acceptance.run([Damage])
