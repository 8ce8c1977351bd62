#!/usr/bin/python3
"""Taking a disk: mounted disks, loop devices and their files, new and empty files, places where io_uring is forbidden.

usage: taken_disk_test.py hosted|vm [unittest arguments]
"""
import concurrent.futures
import errno
import os
import pathlib
import resource
import stat
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support import acceptance, loop_device, no_io_uring  # noqa: E402
from support.kelda_process import KELDA, check, free_port  # noqa: E402

NOBODY = 65534


def sized(path, size):
    with open(path, "wb") as file:
        file.truncate(size)
    return path


@unittest.skipIf(os.getuid() != 0, "mounts and makes loop devices, which only root can")
class LoopDevices(acceptance.Case):
    def refused(self, disk, words, *arguments):
        self.assert_refused([str(disk), words], "--disk", str(disk), *arguments)

    def test_mounted(self):
        """The device and the file below it, by every command that writes; what is mounted keeps its contents."""
        file = sized(self.folder / "f", 64 << 20)
        try:
            made = loop_device.run("mkfs.ext4", "-q", file)
        except FileNotFoundError:
            self.skipTest("needs mkfs.ext4")
        self.assertEqual(made.returncode, 0, made.stderr)
        with loop_device.attached(file) as device:
            with loop_device.mounted(device, self.folder / "mount") as mount:
                (mount / "precious").write_bytes(b"x" * 100_000)
                words = "mounted or in use by another process"
                for disk in (device, file):
                    self.refused(disk, words, "--force")
                    others = ([["vm", "--disk", disk, "--force", "--print-command"]] if self.mode == "vm" else
                              [["selftest", "--disk", disk, "--force"], ["bench", "kv", "--disk", disk, "--force"]])
                    for command in others:
                        code, text = self.kelda(*command)
                        self.assertEqual(code, 1, text)
                        self.assertIn(words, text)
                        self.assertNotIn("qemu-system", text)
            code, text = self.kelda("check", device)  # what only reads is let in, and finds a filesystem
            self.assertIn("an ext2/3/4 filesystem", text)
            with loop_device.mounted(device, self.folder / "again") as mount:
                self.assertEqual((mount / "precious").read_bytes(), b"x" * 100_000)
        self.assertEqual(loop_device.run("e2fsck", "-f", "-n", file).returncode, 0)

    def test_read_only(self):
        """A disk that is read-only is refused at the start by who would write, not at the first write; looking works."""
        file = self.new_disk()
        with loop_device.attached(file, "--read-only") as device:
            if self.mode == "hosted":
                self.refused(device, "is read-only")
                for command in (["selftest", "--disk", device], ["bench", "kv", "--disk", device]):
                    code, text = self.kelda(*command)
                    self.assertEqual(code, 1, text)
                    self.assertIn("is read-only", text)
            else:  # QEMU says it: "The device is not writable"
                code, text = self.kelda("vm", "--disk", device, "--resp", f"127.0.0.1:{free_port()}")
                self.assertNotEqual(code, 0, text)
                self.assertIn("not writable", text)
            code, text = check(device)
            self.assertEqual(code, 0, text)

    def test_device_and_file_are_one_disk(self):
        file = sized(self.folder / "f", 32 << 20)
        busy = "in use by another process"
        with loop_device.attached(file) as device, loop_device.attached(file) as second:
            for first in (device, file):
                server = self.server(first, create="32M")
                client = server.client()
                client.set("a", "1")
                commands = [command for other in (device, file, second) for command in (
                    ["serve", "--disk", other, "--resp", f"127.0.0.1:{free_port()}"],
                    ["vm", "--disk", other, "--resp", f"127.0.0.1:{free_port()}"],
                    ["check", other])]
                with concurrent.futures.ThreadPoolExecutor(len(commands)) as pool:  # each has patience before it refuses
                    for code, text in pool.map(lambda command: self.kelda(*command), commands):
                        self.assertEqual(code, 1, text)
                        self.assertIn(busy, text)
                with self.assertRaises(OSError) as refused:  # as mount does it
                    os.close(os.open(device, os.O_RDWR | os.O_EXCL))
                self.assertEqual(refused.exception.errno, errno.EBUSY)
                self.assertEqual(client.get("a"), b"1")
                client.close()
                self.assertEqual(server.stop(), 0, server.output())
                for name in (device, second, file):  # the devices read through caches of their own
                    loop_device.run("blockdev", "--flushbufs", name)
                    code, text = check(name)
                    self.assertEqual(code, 0, text)

    def test_windows_of_one_file(self):
        """Partitions of an image are disks of their own; what overlaps is not."""
        file = sized(self.folder / "image", 96 << 20)
        window = lambda at, size: ("--offset", str(at << 20), "--sizelimit", str(size << 20))  # noqa: E731
        with loop_device.attached(file, *window(0, 32)) as low, loop_device.attached(file, *window(32, 32)) as high, \
                loop_device.attached(file, *window(48, 32)) as across:
            servers = [self.server(device, create="32M") for device in (low, high)]
            for number, server in enumerate(servers):
                server.client().set("a", number)
            for disk in (across, file):
                self.refused(disk, "in use by another process", "--create", "32M")
            for server in servers:
                self.assertEqual(server.stop(), 0, server.output())
            self.assertEqual([check(device)[0] for device in (low, high)], [0, 0])

    def test_device_without_a_file(self):
        with loop_device.attached(sized(self.folder / "f", 32 << 20)) as device:
            pass
        self.refused(device, "0 bytes", "--create", "32M")


class NewFiles(acceptance.Case):
    def serves(self, disk, create="32M"):
        server = self.server(disk, create=create)
        self.assertTrue(server.client().set("a", 1))
        self.assertEqual(server.stop(), 0, server.output())
        self.assertEqual(check(disk)[0], 0)

    def test_mode(self):
        disk = self.folder / "disk"
        before = os.umask(0)
        try:
            self.serves(disk)
        finally:
            os.umask(before)
        self.assertEqual(stat.S_IMODE(disk.stat().st_mode), 0o600)

    def test_empty_file(self):
        disk = sized(self.folder / "disk", 0)
        self.assert_refused(["is empty", "--create SIZE"], "--disk", str(disk), unchanged=[disk])
        self.assert_refused(["at least"], "--disk", str(disk), "--create", "1M", unchanged=[disk])
        self.serves(disk)
        self.assertEqual(disk.stat().st_size, 32 << 20)

    def test_link_to_what_is_not_there_yet(self):
        (self.folder / "below").mkdir()
        (self.folder / "second").symlink_to("below/disk")
        (self.folder / "link").symlink_to(self.folder / "second")
        self.assert_refused(["at least"], "--disk", str(self.folder / "link"), "--create", "1M", unchanged=[self.folder / "below/disk"])
        self.serves(self.folder / "link")
        self.assertTrue((self.folder / "link").is_symlink())
        self.assertEqual((self.folder / "below" / "disk").stat().st_size, 32 << 20)
        (self.folder / "astray").symlink_to("no-such-folder/disk")
        self.assert_refused(["No such file or directory"], "--disk", str(self.folder / "astray"), "--create", "32M")
        (self.folder / "round").symlink_to("round")
        self.assert_refused(["symbolic links"], "--disk", str(self.folder / "round"), "--create", "32M")

    def test_mistyped_device(self):
        link = self.folder / "link"
        link.symlink_to("/dev/kelda-no-such-device")
        for name in ("/dev/kelda-no-such-device", "/dev/./kelda-no-such-device", "/dev/disk/by-id/kelda-none", link):
            self.assert_refused([str(name), "in another folder"], "--disk", str(name), "--create", "32M")
        self.assertFalse(os.path.exists("/dev/kelda-no-such-device"))
        self.assertFalse(os.path.exists("/dev/disk/by-id/kelda-none"))


class NoIoUring(acceptance.Case):
    def test_serves_with_threads(self):
        for error, words in ((errno.EPERM, "it is forbidden"), (errno.ENOSYS, "this kernel has none")):
            disk = self.folder / f"disk{error}"
            server = no_io_uring.call(error, lambda: self.server(disk, create="32M"))
            self.assertTrue(server.says(f"io_uring is not available here ({words}"), server.output())
            client = server.client()
            client.set("a", "1")
            self.assertEqual(client.get("a"), b"1")
            client.close()
            self.assertEqual(server.stop(), 0, server.output())
            self.assertEqual(check(disk)[0], 0)

    def test_printed_command(self):
        if self.mode != "vm":
            self.skipTest("of the VM only")
        command = ["vm", "--disk", sized(self.folder / "disk", 32 << 20), "--print-command"]
        code, text = no_io_uring.call(errno.EPERM, lambda: self.kelda(*command))
        self.assertEqual(code, 0, text)
        self.assertIn(",aio=threads", text)
        self.assertIn("io_uring is not available here", text)
        code, text = self.kelda(*command)
        self.assertIn(",aio=io_uring" if "not available" not in text else ",aio=threads", text)

    @unittest.skipIf(os.getuid() != 0, "drops privileges, which only root can")
    def test_too_little_memory_to_lock(self):
        disk = self.new_disk()
        os.chmod(self.folder, 0o777)
        os.chmod(disk, 0o666)
        command = ["vm", "--disk", disk, "--print-command"] if self.mode == "vm" else ["check", disk]
        if not os.access(KELDA, os.X_OK):
            self.skipTest("the program cannot be run by others")
        limit = lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))  # noqa: E731
        with open(KELDA, "rb") as program:  # its folder may be private
            inherited = f"/proc/self/fd/{program.fileno()}"
            done = subprocess.run([inherited, *map(str, command)], stdin=subprocess.DEVNULL,
                                             capture_output=True, text=True, pass_fds=[program.fileno()], user=NOBODY,
                                             group=NOBODY, extra_groups=[], preexec_fn=limit, cwd="/", timeout=60)
        text = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, text)
        if "io_uring is not available" not in text:
            self.skipTest("this kernel does not count a ring's memory")
        self.assertIn("a limit of 0 KiB on memory that may be locked (ulimit -l)", text)
        self.assertNotIn("forbidden", text)


if __name__ == "__main__":
    acceptance.run([value for value in list(globals().values())
                    if isinstance(value, type) and issubclass(value, acceptance.Case)])
