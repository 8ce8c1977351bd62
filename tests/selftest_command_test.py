#!/usr/bin/python3
"""`kelda selftest` as a user runs it: refusals, a run, the two phases with a kill between them.

usage: selftest_command_test.py hosted|vm [unittest arguments]
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support import acceptance  # noqa: E402
from support.kelda_process import KELDA, check, children  # noqa: E402


class Selftest(acceptance.Case):
    def command(self, *arguments):
        if self.mode == "hosted":
            return [KELDA, "selftest", "--disk", self.disk, *arguments]
        return [KELDA, "vm", "--disk", self.disk, "--", "selftest", "--disk", "/dev/vda", *arguments]

    def selftest(self, *arguments):
        return self.kelda(*self.command(*arguments)[1:])

    def setUp(self):
        super().setUp()
        self.disk = self.folder / "scratch"
        with open(self.disk, "wb") as file:
            file.truncate(64 << 20)

    def test_a_run(self):
        code, text = self.selftest("--seconds", "3", "--seed", "42")
        self.assertIn(code, (0, 3), text)  # a flush may be fast here
        self.assertIn("seed 42\n", text)
        self.assertRegex(text, r"ok: [1-9]\d* blocks written and [1-9]\d* read")
        self.assertRegex(text, r"verdict: fit")
        if self.mode == "hosted":
            self.assertRegex(text, r"ok: [1-9]\d* times kill -9 of a writer: [1-9]\d* acknowledged records were all there")
        self.assertTrue(self.disk.read_bytes() == bytes(64 << 20), "not left blank")

    def test_json(self):
        code, text = self.selftest("--seconds", "2", "--json")
        self.assertIn(code, (0, 3), text)
        report = json.loads(text.splitlines()[-1])
        self.assertEqual((report["lost"], report["misdirected"], report["damaged"], report["fit"]), (0, 0, 0, True))
        self.assertIn("write_4k_and_flush", [timing["name"] for timing in report["timings"]])

    def test_a_disk_that_is_not_blank_is_refused(self):
        with open(self.disk, "r+b") as file:
            file.seek(5_000_000)
            file.write(b"somebody's data")
        before = self.disk.read_bytes()
        for arguments in (("--seconds", "1"), ("--phase", "write", "--seconds", "1")):
            code, text = self.selftest(*arguments)
            self.assertEqual(code, 1, text)
            self.assertIn("is not blank", text)
            self.assertIn("--force", text)
        self.assertTrue(self.disk.read_bytes() == before)
        self.disk.unlink()
        database = self.new_disk("scratch")
        code, text = self.selftest("--seconds", "1")
        self.assertEqual(code, 1)
        self.assertIn("it is a Kelda disk", text)
        self.assertEqual(check(database)[0], 0)
        code, text = self.selftest("--seconds", "1", "--force")
        self.assertIn(code, (0, 3), text)

    def test_two_phases(self):
        code, text = self.selftest("--phase", "verify", "--acknowledged", "5")
        self.assertEqual(code, 1, text)
        self.assertIn("run --phase write first", text)
        with subprocess.Popen(self.command("--phase", "write"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              env=self.environment()) as process:
            seen = []
            while len(seen) < 30:
                line = process.stdout.readline()
                self.assertTrue(line, seen)
                if re.fullmatch(r"\d+\s*", line):
                    seen.append(int(line))
            for pid in children(process.pid):
                if self.mode == "vm" and b"qemu" in pathlib.Path(f"/proc/{pid}/comm").read_bytes():
                    os.kill(pid, signal.SIGKILL)
            if self.mode == "hosted":
                process.kill()
            seen += [int(word) for word in process.stdout.read().splitlines()[:-1] if word.isdigit()]
            process.wait(30)
        time.sleep(0.2)
        code, text = self.selftest("--phase", "verify", "--acknowledged", str(seen[-1]))
        self.assertEqual(code, 0, text)
        self.assertRegex(text, r"[1-9]\d* records had to be there: 0 lost, 0 blocks misdirected")
        # A number that was never acknowledged: the disk must be accused.
        code, text = self.selftest("--phase", "verify", "--acknowledged", str(seen[-1] + 100_000))
        self.assertEqual(code, 1, text)
        self.assertIn("NOT FIT", text)

    def test_usage(self):
        self.assertEqual(self.kelda("selftest")[0], 2)
        self.assertEqual(self.kelda("selftest", "--help")[0], 0)
        self.assertEqual(self.kelda("selftest", "--disk", self.disk, "--phase", "half")[0], 2)
        self.assertEqual(self.kelda("selftest", "--disk", self.folder / "none")[0], 1)


if __name__ == "__main__":
    acceptance.run([Selftest])
