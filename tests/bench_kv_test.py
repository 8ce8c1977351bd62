#!/usr/bin/python3
"""`kelda bench kv` on disks that are somebody's: refused unless told so; nothing of theirs changes and nothing is left behind.

usage: bench_kv_test.py hosted|vm [unittest arguments]
"""
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support import acceptance  # noqa: E402
from support.kelda_process import KELDA, check  # noqa: E402


class BenchKv(acceptance.Case):
    SHORT = ("--records", "5000", "--seconds", "0.5", "--read-percent", "50")

    def command(self, disk, *arguments, create=None):
        created = ["--create", create] if create else []
        if self.mode == "hosted":
            return ["bench", "kv", "--disk", str(disk), "--memory", "64M", *created, *arguments]
        return ["vm", "--disk", str(disk), *created, "--", "bench", "kv", *arguments]

    def used_pages(self, disk, trees):
        """What is in use on a sound disk that has these trees and no other."""
        code, text = check(disk)
        self.assertEqual(code, 0, text)
        self.assertEqual(set(re.findall(r"^tree (\S.*?): ", text, re.M)) - {"(catalog)"}, set(trees), text)
        return int(re.search(r"(\d+) in use", text)[1])

    def trees(self, disk):
        return set(re.findall(r"^tree (\S.*?): ", check(disk)[1], re.M)) - {"(catalog)"}

    def dump(self, disk):
        done = subprocess.run([KELDA, "dump", str(disk), "--quiet"], capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_a_disk_of_its_own_is_left_empty(self):
        disk = self.folder / "disk"
        code, text = self.kelda(*self.command(disk, *self.SHORT, create="64M"))
        self.assertEqual(code, 0, text)
        self.assertRegex(text, r"[1-9]\d* operations in ")
        used = self.used_pages(disk, [])
        self.assertLess(used, 20)
        code, text = self.kelda(*self.command(disk, *self.SHORT))  # again, on what the first one left
        self.assertEqual(code, 0, text)
        self.assertEqual(self.used_pages(disk, []), used)

    def test_a_used_disk_is_refused(self):
        disk = self.new_disk(size="64M")
        before = self.dump(disk), check(disk)[1]
        code, text = self.kelda(*self.command(disk, *self.SHORT))
        self.assertEqual(code, 1, text)
        self.assertRegex(text, r"holds data \(trees? '.*--keep-data")
        self.assertNotIn("operations in", text)
        self.assertEqual((self.dump(disk), check(disk)[1]), before)

    def test_beside_data_that_stays(self):
        disk = self.new_disk(size="64M")
        before, trees = self.dump(disk), self.trees(disk)
        used = self.used_pages(disk, trees)
        code, text = self.kelda(*self.command(disk, *self.SHORT, "--keep-data"))
        self.assertEqual(code, 0, text)
        self.assertRegex(text, r"[1-9]\d* operations in ")
        self.assertEqual(self.dump(disk), before)
        self.assertEqual(self.used_pages(disk, trees), used)
        # More than there is room for: an error, and the disk is its owner's again.
        code, text = self.kelda(*self.command(disk, "--records", "300000", "--value-bytes", "1000", "--keep-data"))
        self.assertEqual(code, 1, text)
        self.assertIn("the disk is full", text)
        self.assertEqual(self.dump(disk), before)
        self.assertEqual(self.used_pages(disk, trees), used)
        server = self.server(disk)
        with server.client() as client:
            self.assertTrue(client.set("mine", b"x" * 500_000))
        self.assertEqual(server.stop(), 0, server.output())

    def start(self, disk, *arguments):
        process = subprocess.Popen([KELDA, *self.command(disk, *arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, env=self.environment())
        self.addCleanup(process.kill)
        return process

    def await_load(self, process):
        for line in process.stdout:
            if line.startswith("loaded "):
                return
        self.fail("it ended before it had loaded its records")

    def test_a_request_to_stop(self):
        disk = self.new_disk(size="64M")
        before, trees = self.dump(disk), self.trees(disk)
        used = self.used_pages(disk, trees)
        process = self.start(disk, "--records", "5000", "--seconds", "60", "--keep-data")
        self.await_load(process)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        text = process.communicate(timeout=30)[0]
        self.assertEqual(process.returncode, 1, text)
        self.assertIn("stopped before its end, as asked", text)
        self.assertLess(time.monotonic() - began, 20)
        self.assertEqual(self.dump(disk), before)
        self.assertEqual(self.used_pages(disk, trees), used)

    def test_what_a_killed_one_left_goes_with_the_next(self):
        disk = self.folder / "disk"
        self.assertEqual(self.kelda(*self.command(disk, *self.SHORT, create="64M"))[0], 0)
        used = self.used_pages(disk, [])
        process = self.start(disk, "--records", "5000", "--seconds", "60")
        self.await_load(process)
        if self.mode == "hosted":
            process.kill()
        else:
            for child in subprocess.run(["pgrep", "-P", str(process.pid), "-f", "qemu"], capture_output=True, text=True).stdout.split():
                os.kill(int(child), signal.SIGKILL)
        process.communicate(timeout=30)
        self.assertEqual(len(self.trees(disk)), 1)
        code, text = self.kelda(*self.command(disk, *self.SHORT))
        self.assertEqual(code, 0, text)
        self.assertIn("removed what an earlier benchmark had left", text)
        self.assertEqual(self.used_pages(disk, []), used)


if __name__ == "__main__":
    acceptance.run([BenchKv])
