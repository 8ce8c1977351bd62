#!/usr/bin/python3
"""A huge sparse disk with little on it: serve, check and dump keep within --memory, and say so when they cannot.

usage: check_memory_test.py hosted|vm [unittest arguments]
"""
import os
import pathlib
import resource
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support import acceptance  # noqa: E402
from support.kelda_process import KELDA  # noqa: E402

MEMORY_MIB = 64
# The program itself, its stacks and the C library's caches come on top of what --memory bounds.
BESIDE_MIB = 48


class HugeDisk(acceptance.Case):
    def huge(self, size):
        """A sparse disk with two keys, one of them of many pages, closed cleanly; skips where no file can be so long."""
        disk = self.folder / "huge"
        try:
            with open(disk, "wb") as file:
                file.truncate(int(size[:-1]) << 40)
        except OSError as error:
            self.skipTest(f"no file of {size} here: {error}")
        server = self.server(disk, create=size, memory=f"{MEMORY_MIB}M")
        client = server.client()
        client.set("key", "value")
        client.set("long", b"x" * 1_000_000)
        client.close()
        if self.mode == "hosted":
            self.assert_within(self.high_water_kib(server.process.pid))
        self.assertEqual(server.stop(), 0, server.output())
        return disk

    def high_water_kib(self, pid):
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
        self.fail("no VmHWM")

    def assert_within(self, kib):
        self.assertLess(kib / 1024, MEMORY_MIB + BESIDE_MIB)

    def measured(self, *arguments):
        """(exit code, output) of a command that keeps within the bound."""
        with open(self.folder / "output", "w+b") as output:
            process = subprocess.Popen([KELDA, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            text = output.read().decode(errors="replace")
        if process.returncode == 0:
            self.assert_within(used.ru_maxrss)
        return process.returncode, text

    def run_on(self, disk, command, *arguments):
        if self.mode == "hosted":
            return self.measured(command, disk, *arguments)
        return self.kelda("vm", "--disk", disk, "--memory", f"{MEMORY_MIB + BESIDE_MIB}M", "--", command, "/dev/vda", *arguments)

    def test_check_and_dump(self):
        disk = self.huge("6T")
        code, text = self.run_on(disk, "check", "--memory", f"{MEMORY_MIB}M")
        self.assertEqual(code, 0, text)
        self.assertIn("2 keys", text)
        self.assertIn("sound", text)
        code, text = self.run_on(disk, "dump", "--memory", f"{MEMORY_MIB}M", "--format", "none")
        self.assertEqual(code, 0, text)
        self.assertIn("complete", text)
        if self.mode == "vm":  # what the machine has by default
            code, text = self.kelda("vm", "--disk", disk, "--", "check", "/dev/vda")
            self.assertEqual(code, 0, text)
            self.assertIn("sound", text)

    def test_too_little_is_said(self):
        disk = self.new_disk()
        commands = [("check", disk), ("dump", disk)] if self.mode == "hosted" else [
            ("vm", "--disk", disk, "--", name, "/dev/vda") for name in ("check", "dump")]
        for command in commands:
            code, text = self.kelda(*command, "--memory", "1M")
            self.assertEqual(code, 1, text)
            self.assertRegex(text, r"memory.*\(--memory\)")
            self.assertNotIn("panic", text)

    def test_refused_memory_is_an_error(self):
        """Address space that the system does not give: a sentence and exit code 1, no abort."""
        if self.mode == "vm":
            self.skipTest("a machine has no ulimit")
        disk = self.huge("6T")
        small = self.new_disk()
        for command in ("check", "dump"):
            for megabytes in (40, 60, 80, 100, 200, 1000):
                for one in (disk, small):
                    limit = megabytes << 20
                    code, text = self.kelda(command, one, "--memory", f"{MEMORY_MIB}M",
                                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
                    self.assertIn(code, (0, 1), text)
                    self.assertNotIn("panic", text)
                    self.assertNotIn("terminate", text)
                    if code == 1:
                        self.assertRegex(text, "memory|address space")


class NotADatabase(acceptance.Case):
    def test_readers_are_not_told_to_format(self):
        """check and dump have no --force and no --create, and what is in the file is not theirs to print."""
        text_file = self.folder / "text"
        text_file.write_bytes(b"root:x:0:0:secret\n" * 1000000)
        blank = self.folder / "blank"
        with open(blank, "wb") as file:
            file.truncate(32 << 20)
        for command in ("check", "dump"):
            for disk, word in ((text_file, "holds text, not a Kelda disk"), (blank, "is blank")):
                code, text = (self.kelda(command, disk) if self.mode == "hosted" else
                              self.kelda("vm", "--disk", disk, "--", command, "/dev/vda"))
                self.assertEqual(code, 1, text)
                self.assertIn(word, text)
                for absent in ("--force", "--create", "secret", "root:x"):
                    self.assertNotIn(absent, text)


if __name__ == "__main__":
    acceptance.run([HugeDisk, NotADatabase])
