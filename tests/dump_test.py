#!/usr/bin/python3
"""`kelda dump`: a sound disk loaded into a new server gives the same data; a damaged one gives the rest, and names what is missing.

usage: dump_test.py hosted|vm [unittest arguments]
"""
import json
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support import acceptance  # noqa: E402
from support.kelda_process import KELDA  # noqa: E402

PAGE = 4096


class Dump(acceptance.Case):
    def dump(self, *arguments):
        """(exit code, stream, report), in this test's mode."""
        if self.mode == "hosted":
            done = subprocess.run([KELDA, "dump", self.disk, *arguments], capture_output=True, timeout=120, env=self.environment())
            return done.returncode, done.stdout, done.stderr.decode()
        def guest(*more):
            return subprocess.run([KELDA, "vm", "--disk", self.disk, "--", "dump", "/dev/vda", *arguments, *more], capture_output=True,
                                  timeout=120, env=self.environment())
        # One console: the stream and the report each by itself.
        stream, report = guest("--quiet"), guest("--format", "none")
        return stream.returncode, stream.stdout, report.stdout.decode()

    def fill(self):
        self.disk = self.folder / "disk"
        server = self.server(self.disk, create="64M", memory="64M")
        client = server.client()
        self.model = {}
        for first in range(0, 6000, 1000):
            batch = {f"key{i:05}".encode(): b"value %d " % i * (1000 if i % 500 == 0 else 10) for i in range(first, first + 1000)}
            client.mset(batch)
            self.model.update(batch)
        odd = {b"": b"the empty key", b"\0": b"a zero", b"\0\0": b"", b"line\r\nbreak": bytes(range(256)), b"k" * 1000: b"long key"}
        for key, value in odd.items():
            client.set(key, value)
        self.model.update(odd)
        self.later = int(time.time() * 1000) + 1_000_000
        client.set("expires", "some day", pxat=self.later)
        self.model[b"expires"] = b"some day"
        other = server.client(db=3)
        other.set("elsewhere", "3")
        other.close()
        client.close()
        return server

    def load(self, stream):
        target = self.server(self.folder / "copy", create="64M", memory="64M")
        done = subprocess.run(["redis-cli", "-p", str(target.port), "--pipe"], input=stream, capture_output=True, timeout=120)
        self.assertEqual(done.returncode, 0, done)
        self.assertIn(b"errors: 0", done.stdout)
        client = target.client()
        keys = client.keys("*")
        found = dict(zip(keys, client.mget(keys))) if keys else {}
        self.assertEqual(client.pexpiretime("expires"), self.later)
        self.assertEqual(target.client(db=3).get("elsewhere"), b"3")
        client.close()
        self.assertEqual(target.stop(), 0)
        return found

    def test_a_sound_disk_loads_into_a_new_server(self):
        self.fill().stop()
        before = self.disk.read_bytes()
        code, stream, report = self.dump()
        self.assertEqual(code, 0, report)
        self.assertTrue(report.endswith("complete\n"), report)
        self.assertEqual(self.load(stream), self.model)
        self.assertTrue(self.disk.read_bytes() == before, "dump changed the disk")

    def test_a_disk_that_was_not_closed(self):
        self.fill().kill()
        code, stream, report = self.dump()
        self.assertEqual(code, 0, report)
        self.assertEqual(self.load(stream), self.model)

    def test_json(self):
        self.fill().stop()
        code, stream, report = self.dump("--format", "json", "--json") if self.mode == "hosted" else self.dump("--format", "json")
        self.assertEqual(code, 0, report)
        lines = [json.loads(line) for line in stream.splitlines()]
        found = {}
        for line in lines:
            if line["db"] == 0:
                key = bytes.fromhex(line["key_hex"]) if "key_hex" in line else line["key"].encode()
                found[key] = bytes.fromhex(line["value_hex"]) if "value_hex" in line else line["value"].encode()
        self.assertEqual(found, self.model)
        self.assertIn({"db": 0, "key": "expires", "value": "some day", "expire_ms": self.later}, lines)
        if self.mode == "hosted":
            self.assertEqual(json.loads(report)["keys"], len(self.model) + 1)

    def test_a_lost_leaf_is_named_and_the_rest_loads(self):
        self.fill().stop()
        where = acceptance.superblock(self.disk)
        with open(self.disk, "r+b") as file:
            file.seek(where["double_write_offset"])
            file.write(bytes(where["double_write_bytes"]))  # no second copy
            file.seek(where["pages_offset"])
            area = file.read(2000 * PAGE)
            leaf = next(page for page in range(8, 2000) if area[page * PAGE + 24] == 2 and area[page * PAGE + 25] == 0
                        and area[page * PAGE:(page + 1) * PAGE].count(b"value 3") > 50)
            file.seek(where["pages_offset"] + leaf * PAGE + 1000)
            file.write(b"garbage")
        code, stream, report = self.dump()
        self.assertEqual(code, 3, report)
        self.assertRegex(report, rf'SKIPPED kv.0, keys from "key0.*" to "key0.*" \(not included\): page {leaf}: ')
        self.assertTrue(report.endswith("NOT COMPLETE\n"), report)
        found = self.load(stream)
        missing = self.model.keys() - found.keys()
        self.assertTrue(0 < len(missing) < 100, missing)
        self.assertEqual(found, {key: value for key, value in self.model.items() if key not in missing})

    def test_both_superblock_copies(self):
        self.fill().stop()
        for place in acceptance.SUPERBLOCK_COPIES:
            with open(self.disk, "r+b") as file:
                file.seek(place + 200)
                file.write(b"garbage")
        code, stream, report = self.dump()
        self.assertEqual(code, 1)
        self.assertIn("both copies of the superblock are damaged", report + stream.decode())

    def test_usage(self):
        self.disk = self.folder / "none"
        self.assertEqual(self.kelda("dump", self.disk)[0], 1)
        self.assertEqual(self.kelda("dump")[0], 2)
        self.assertEqual(self.kelda("dump", "--format", "xml", self.disk)[0], 2)
        self.assertEqual(self.kelda("dump", "--help")[0], 0)
        self.fill().stop()
        self.assertIn("ID=NAME", self.kelda("dump", "--name", "kv", self.disk)[1])
        self.assertEqual(self.kelda("dump", self.disk, "--out", self.folder / "out")[0], 0)
        self.assertIn(b"elsewhere", (self.folder / "out").read_bytes())
        code, text = self.kelda("dump", self.disk, "--out", self.folder / "out")  # never overwrites
        self.assertEqual(code, 1, text)


if __name__ == "__main__":
    acceptance.run([Dump])
