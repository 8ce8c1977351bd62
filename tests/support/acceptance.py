"""What the acceptance tests share: the `kelda` command run to its end, and a folder that must be left as it was found.

A test of this kind asserts four things about bad input: one clear message that says what to do, a failing exit code,
nothing changed on the disk, and nothing left running or lying around.
"""
import ctypes
import ctypes.util
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest

from support.kelda_process import KELDA, Kelda, free_port

MODES = ("hosted", "vm")
# Under emulation on a busy machine a start takes seconds; what hangs is ended long before CTest's own time-out.
END_SECONDS = 120


def mode_from_argument():
    """The first argument (removed): hosted or vm."""
    if len(sys.argv) < 2 or sys.argv[1] not in MODES:
        sys.exit(f"usage: {sys.argv[0]} hosted|vm [unittest arguments]")
    return sys.argv.pop(1)


def xxh3(data, seed):
    library = ctypes.CDLL(ctypes.util.find_library("xxhash") or "libxxhash.so.0")
    library.XXH3_64bits_withSeed.restype = ctypes.c_uint64
    library.XXH3_64bits_withSeed.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64)
    return library.XXH3_64bits_withSeed(bytes(data), len(data), seed)


SUPERBLOCK_COPIES = (0, 64 << 10)


def edit_superblock(disk, offset, data):
    """Changes both copies and gives them valid checksums (docs/format-disk.md)."""
    with open(disk, "r+b") as file:
        for copy, place in enumerate(SUPERBLOCK_COPIES):
            file.seek(place)
            block = bytearray(file.read(4096))
            block[offset:offset + len(data)] = data
            block[504:512] = bytes(8)
            block[504:512] = struct.pack("<Q", xxh3(block, copy))
            file.seek(place)
            file.write(block)


def superblock(disk):
    """Fields of the ruling copy."""
    with open(disk, "rb") as file:
        copies = []
        for place in SUPERBLOCK_COPIES:
            file.seek(place)
            copies.append(file.read(4096))
    ruling = max(copies, key=lambda block: struct.unpack_from("<Q", block, 104)[0])
    names = ("device_bytes", "log_offset", "log_bytes", "double_write_offset", "double_write_bytes", "pages_offset",
             "page_count", "sequence", "redo_lsn", "log_position")
    fields = dict(zip(names, struct.unpack_from("<10Q", ruling, 48)))
    fields["copy"] = fields["sequence"] % 2
    return fields


def processes_naming(text):
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            command = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in command:
            found.append(f"{entry}: {command.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


class Case(unittest.TestCase):
    """A test with a folder of its own, `self.folder`, that checks for leftovers at its end."""

    mode = "hosted"

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kelda-accept-"))
        self.scratch = self.folder / "tmp"  # what the programs use as $TMPDIR
        self.scratch.mkdir()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(self.assert_nothing_left)

    def assert_nothing_left(self):
        deadline = time.monotonic() + 10
        while (left := processes_naming(str(self.folder))) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(left, [], "left running")
        self.assertEqual(os.listdir(self.scratch), [], "left in $TMPDIR")

    def environment(self):
        return {**os.environ, "TMPDIR": str(self.scratch)}

    def kelda(self, *arguments, seconds=END_SECONDS, **more):
        """Runs `kelda ARGUMENTS` to its end: (exit code, all that it printed)."""
        with subprocess.Popen([KELDA, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", env=self.environment(), **more) as process:
            try:
                text, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.terminate()
                time.sleep(2)
                process.kill()
                self.fail(f"kelda {arguments} did not end in {seconds} s:\n{process.communicate()[0]}")
        return process.returncode, text

    def start_arguments(self, *arguments):
        """The command that starts a server in this test's mode, on a free port unless one is given."""
        command = ["serve" if self.mode == "hosted" else "vm", *arguments]
        return command if "--resp" in arguments else [*command, "--resp", f"127.0.0.1:{free_port()}"]

    def server(self, disk, **options):
        os.environ["TMPDIR"] = str(self.scratch)
        try:
            server = Kelda(options.pop("mode", self.mode), disk, **options).start()
        finally:
            del os.environ["TMPDIR"]
        self.addCleanup(server.kill)
        return server

    def new_disk(self, name="disk", size="32M"):
        """A disk with a few keys, closed cleanly."""
        disk = self.folder / name
        server = self.server(disk, mode="hosted", create=size)
        client = server.client()
        client.mset({f"key{i}": f"value{i}" for i in range(100)})
        client.close()
        self.assertEqual(server.stop(), 0, server.output())
        return disk

    def assert_message(self, text, words):
        """One message, which has all the words, and nothing that only a developer understands."""
        messages = [line for line in text.splitlines() if line.startswith(("kelda serve:", "kelda vm:", "kelda check:", "kelda:", "qemu"))]
        self.assertEqual(len(messages), 1, "not one message:\n" + text)
        for word in words:
            self.assertIn(word, messages[0])
        for word in ("panic", "assertion", "Aborted", "core dumped"):
            self.assertNotIn(word, text)

    def assert_refused(self, words, *arguments, code=1, unchanged=(), **more):
        """The start fails with one message; the files named are not changed, and those that were not there still are not."""
        before = {path: path.read_bytes() if path.exists() else None for path in unchanged}
        found, text = self.kelda(*self.start_arguments(*arguments), **more)
        self.assertEqual(found, code, text)
        self.assert_message(text, words)
        for path, content in before.items():
            now = path.read_bytes() if path.exists() else None
            self.assertTrue(now == content, f"{path} was changed, made or removed")


def run(cases):
    """Main of such a test: MODE, then unittest's arguments."""
    mode = mode_from_argument()
    for case in cases:
        case.mode = mode
    unittest.main(module=sys.modules["__main__"], verbosity=2)
