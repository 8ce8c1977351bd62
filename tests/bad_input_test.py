#!/usr/bin/python3
"""Bad disks, bad command lines, bad places: what `kelda serve`, `kelda vm` and `kelda check` say, and what they leave alone.

usage: bad_input_test.py hosted|vm [unittest arguments]
"""
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support import acceptance  # noqa: E402
from support.kelda_process import KELDA, check, free_port  # noqa: E402

MKE2FS = shutil.which("mke2fs", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
NOBODY = 65534


class NotADisk(acceptance.Case):
    def test_folder(self):
        self.assert_refused([str(self.folder), "name a file or a block device"], "--disk", str(self.folder), "--create", "64M")

    def test_dev_null(self):
        self.assert_refused(["/dev/null is neither a file nor a block device"], "--disk", "/dev/null", "--create", "64M")

    def test_missing(self):
        path = self.folder / "missing"
        self.assert_refused([str(path), "--create SIZE"], "--disk", str(path), unchanged=[path])
        path = self.folder / "no-such-folder" / "disk"
        self.assert_refused([str(path), "No such file or directory"], "--disk", str(path), "--create", "64M", unchanged=[path])

    def test_check_of_what_is_no_disk(self):
        for path, words in (("/dev/null", "neither a file"), (self.folder, "neither a file"), (self.folder / "x", "No such file")):
            code, text = check(path)
            self.assertEqual(code, 1)
            self.assertIn(words, text)
            self.assertNotIn("--create", text)


class ForeignDisk(acceptance.Case):
    def write(self, name, pieces, size=32 << 20):
        path = self.folder / name
        with open(path, "wb") as file:
            file.truncate(size)
            for offset, data in pieces:
                file.seek(offset)
                file.write(data)
        return path

    def assert_never_overwritten(self, path, what):
        words = [what, "name another disk", "--force"]
        self.assert_refused(words, "--disk", str(path), unchanged=[path])
        self.assert_refused(words, "--disk", str(path), "--create", "32M", unchanged=[path])

    @unittest.skipIf(MKE2FS is None, "needs mke2fs")
    def test_filesystem_is_kept_and_force_formats_it(self):
        path = self.folder / "ext4"
        subprocess.run([MKE2FS, "-q", "-t", "ext4", str(path), "32M"], check=True, capture_output=True)
        self.assert_never_overwritten(path, "an ext2/3/4 filesystem")
        code, text = check(path)
        self.assertEqual(code, 1)
        self.assertIn("an ext2/3/4 filesystem", text)
        server = self.server(path, extra=["--force"])
        self.assertTrue(server.client().set("a", 1))
        self.assertEqual(server.stop(), 0, server.output())
        self.assertEqual(check(path)[0], 0)

    def test_text(self):
        text = b"# notes about the disk\n" * 1000
        self.assert_never_overwritten(self.write("notes", [(0, text)]), 'holds text, not a Kelda disk')

    def test_partition_tables(self):
        mbr = self.write("mbr", [(446, bytes(16) + b"\x80"), (510, b"\x55\xaa")])
        self.assert_never_overwritten(mbr, "a partition table or boot sector (MBR)")
        gpt = self.write("gpt", [(510, b"\x55\xaa"), (512, b"EFI PART")])
        self.assert_never_overwritten(gpt, "a GPT partition table")

    def test_data_at_the_end_only(self):
        path = self.write("raid", [((32 << 20) - 512, b"EFI PART")])
        self.assert_refused(["its end holds data", "name another disk", "--force"], "--disk", str(path), "--create", "32M",
                            unchanged=[path])

    def test_blank_disk_needs_create(self):
        path = self.write("blank", [])
        self.assert_refused(["is blank", "--create"], "--disk", str(path), unchanged=[path])


class Versions(acceptance.Case):
    def test_newer_format(self):
        disk = self.new_disk()
        acceptance.edit_superblock(disk, 8, struct.pack("<I", 2))
        words = ["newer Kelda", "format version 2", "use that version or a newer one"]
        self.assert_refused(words, "--disk", str(disk), unchanged=[disk])
        self.assert_refused(words, "--disk", str(disk), "--create", "32M", unchanged=[disk])
        code, text = check(disk)
        self.assertEqual(code, 1)
        self.assertIn("newer Kelda", text)

    def test_unknown_features(self):
        disk = self.new_disk()
        acceptance.edit_superblock(disk, 16, struct.pack("<Q", 1 << 40))  # compatible: ignored, and kept
        server = self.server(disk)
        self.assertEqual(server.client().get("key1"), b"value1")
        self.assertEqual(server.stop(), 0)
        self.assertEqual(struct.unpack_from("<Q", disk.read_bytes(), 16)[0], 1 << 40)
        acceptance.edit_superblock(disk, 24, struct.pack("<Q", 4))  # incompatible
        self.assert_refused(["newer Kelda", "0x4"], "--disk", str(disk), unchanged=[disk])

    def test_disk_that_was_cut_short(self):
        disk = self.new_disk()
        with open(disk, "r+b") as file:
            file.truncate(24 << 20)
        self.assert_refused(["was cut short", "enlarge it"], "--disk", str(disk), unchanged=[disk])


class TwoProcesses(acceptance.Case):
    """The mode is that of the first; the second is tried as both."""

    def test_second_user_is_refused(self):
        disk = self.folder / "disk"
        server = self.server(disk, create="32M")
        client = server.client()
        client.set("a", "1")
        for command in ("serve", "vm"):
            code, text = self.kelda(command, "--disk", disk, "--resp", f"127.0.0.1:{free_port()}")
            self.assertEqual(code, 1, text)
            self.assertRegex(text, "in use by another process .*: stop it first")
        code, text = check(disk)
        self.assertEqual(code, 1, text)
        self.assertIn("stop it first", text)
        self.assertEqual(client.get("a"), b"1")
        client.set("b", "2")
        client.close()
        self.assertEqual(server.stop(), 0, server.output())
        self.assertEqual(check(disk)[0], 0)


class TooSmall(acceptance.Case):
    def test_disk(self):
        new = self.folder / "new"
        self.assert_refused(["1048576 bytes", "at least", "16 MiB"], "--disk", str(new), "--create", "1M", unchanged=[new])
        there = self.folder / "there"
        there.write_bytes(bytes(1 << 20))
        self.assert_refused(["at least", "16 MiB"], "--disk", str(there), "--create", "1M", unchanged=[there])
        tiny = self.folder / "tiny"
        tiny.write_bytes(b"hello\n")
        before = tiny.read_bytes()
        code, text = self.kelda(*self.start_arguments("--disk", str(tiny), "--create", "64M"))
        self.assertEqual(code, 1)
        self.assertRegex(text, "6 bytes, which is no disk|not a Kelda disk")
        self.assertEqual(tiny.read_bytes(), before)

    def test_smallest_disk_works(self):
        server = self.server(self.folder / "smallest", create="16M")
        self.assertTrue(server.client().set("a", 1))
        self.assertEqual(server.stop(), 0, server.output())

    def test_memory(self):
        disk = self.folder / "disk"
        if self.mode == "hosted":
            self.assert_refused(["at least 16 MiB", "--memory gives 4 MiB", "give it more"], "--disk", str(disk),
                                "--create", "32M", "--memory", "4M", unchanged=[disk])
        else:
            self.assert_refused(["too little memory", "give the machine more"], "--disk", str(disk),
                                "--create", "32M", "--memory", "8M", code=101, unchanged=[disk])

    def test_least_memory_serves(self):
        memory = "16M" if self.mode == "hosted" else "64M"
        server = self.server(self.folder / "disk", create="64M", memory=memory)
        client = server.client()
        for i in range(200):
            client.set(f"k{i}", b"v" * 50_000)
        self.assertEqual(client.get("k0"), b"v" * 50_000)
        self.assertEqual(server.stop(), 0, server.output())


class CommandLine(acceptance.Case):
    def assert_usage(self, words, *arguments):
        code, text = self.kelda(*arguments)
        self.assertEqual(code, 2, text)
        for word in words:
            self.assertIn(word, text)

    def test_words_that_are_not_known(self):
        self.assert_usage(["--bogus", "--help"], self.start_arguments()[0], "--disk", "x", "--bogus")
        self.assert_usage(["'frobnicate' is no command", "serve"], "frobnicate")
        self.assert_usage(["--help"])
        self.assert_usage(["'12Q' is no size"], "serve", "--disk", "x", "--create", "12Q")
        for command in (["serve", "--disk", "x"], ["vm", "--disk", "x"], ["bench", "kv"], ["selftest", "--disk", "x"]):
            self.assert_usage(["'0' is no size"], *command, "--create", "0")
        for command in (["serve", "--disk", "x"], ["vm", "--disk", "x"], ["bench", "kv"], ["check", "x"], ["dump", "x"]):
            self.assert_usage(["'0' is no size"], *command, "--memory", "0")
            self.assert_usage(["'0M' is no size"], *command, "--memory", "0M")
        self.assert_usage(["kelda bench: 'kw' is no command"], "help", "bench", "kw")
        self.assert_usage(["--durability"], "serve", "--disk", "x", "--durability", "perhaps")
        self.assert_usage(["--disk"], "serve")
        self.assert_usage(["--cpus"], "vm", "--disk", "x", "--cpus", "99")

    def test_help_of_every_command(self):
        for command in ([], ["vm"], ["serve"], ["check"], ["bench"], ["bench", "kv"], ["version"]):
            code, text = self.kelda(*command, "--help")
            self.assertEqual(code, 0)
            self.assertIn("Usage:", text)

    def test_help_and_version_as_words_and_as_options(self):
        code, version = self.kelda("version")
        self.assertEqual(code, 0)
        self.assertRegex(version, r"^kelda \d+\.\d+\S*\n$")
        for option in ("--version", "-v"):
            self.assertEqual(self.kelda(option), (0, version))
        self.assertEqual(self.kelda("help"), self.kelda("--help"))
        for command in ["serve"], ["bench", "kv"]:
            code, text = self.kelda("help", *command)
            self.assertEqual(code, 0, text)
            self.assertIn("Usage: kelda " + " ".join(command), text)
            self.assertIn("--memory SIZE", text)

    def test_more_memory_than_there_is(self):
        disk = self.folder / "disk"
        words = ["--memory 1000 TiB is more than this machine has", "give less"]
        self.assert_refused(words, "--disk", str(disk), "--create", "32M", "--memory", "1000T", unchanged=[disk])
        for command in (["check", "x"], ["dump", "x"], ["bench", "kv", "--disk", str(disk), "--create", "32M"]):
            code, text = self.kelda(*command, "--memory", "1000T")
            self.assertEqual(code, 1, text)
            self.assertRegex(text, words[0])
        self.assertFalse(disk.exists())

    def test_addresses(self):
        disk = self.folder / "disk"
        for resp in ("127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:http"):
            self.assert_refused([":PORT"], "--disk", str(disk), "--create", "32M", "--resp", resp, unchanged=[disk])
        self.assert_refused(["is not an IPv4 address"], "--disk", str(disk), "--create", "32M", "--resp", "somewhere:7000",
                            unchanged=[disk])

    def test_port_in_use(self):
        disk = self.folder / "disk"
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            resp = f"127.0.0.1:{taken.getsockname()[1]}"
            self.assert_refused([resp, "choose another"], "--disk", str(disk), "--create", "32M", "--resp", resp, unchanged=[disk])

    def test_guest_command_line(self):
        if self.mode != "vm":
            self.skipTest("of the VM only")
        code, text = self.kelda("vm", "--", "frobnicate")
        self.assertEqual(code, 2)
        self.assertIn("'frobnicate' is no command", text)
        code, text = self.kelda("vm", "--", "check", "/dev/vda")
        self.assertEqual(code, 1)
        self.assertIn("no such disk; this machine has none", text)


@unittest.skipIf(os.getuid() != 0, "drops privileges, which only root can")
class Permissions(acceptance.Case):
    def setUp(self):
        super().setUp()
        self.folder.chmod(0o755)
        self.scratch.chmod(0o777)
        self.program = self.folder / "kelda"  # the build folder may be private
        shutil.copy(KELDA, self.program)

    def as_nobody(self, *arguments):
        done = subprocess.run([str(self.program), *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=acceptance.END_SECONDS, user=NOBODY, group=NOBODY, extra_groups=[],
                              env=self.environment(), cwd="/")
        return done.returncode, done.stdout + done.stderr

    def test_unreadable_file(self):
        disk = self.new_disk()
        disk.chmod(0o000)
        before = disk.read_bytes()
        for command in (self.start_arguments("--disk", str(disk)), ["check", str(disk)]):
            code, text = self.as_nobody(*command)
            self.assertEqual(code, 1, text)
            self.assertIn("Permission denied", text)
        self.assertEqual(disk.read_bytes(), before)

    def test_read_only_file_can_be_checked_but_not_served(self):
        disk = self.new_disk()
        disk.chmod(0o444)
        code, text = self.as_nobody(*self.start_arguments("--disk", str(disk)))
        self.assertEqual(code, 1, text)
        self.assertIn("Permission denied", text)
        code, text = self.as_nobody("check", disk)
        self.assertEqual(code, 0, text)


class NoFlush(acceptance.Case):
    """QEMU's disk offers no flush when its cache is write-through and cannot be switched. A file of Linux always has it."""

    def test_refused_unless_told(self):
        if self.mode != "vm":
            self.skipTest("of the VM only; engine_test has the same on a simulated disk")
        hide = [f"--qemu={word}" for option in ("config-wce", "write-cache")
                for word in ("-global", f"virtio-blk-pci.{option}=off")]
        disk = self.new_disk()
        self.assert_refused(["offers no flush", "--durability=none"], "--disk", str(disk), *hide, unchanged=[disk])
        server = self.server(disk, extra=[*hide, "--durability", "none"])
        self.assertIn("durability: NONE", server.output())
        self.assertEqual(server.client().get("key7"), b"value7")
        self.assertEqual(server.stop(), 0, server.output())


if __name__ == "__main__":
    acceptance.run([value for value in list(globals().values())
                    if isinstance(value, type) and issubclass(value, acceptance.Case)])
