#!/usr/bin/python3
"""A serving guest that breaks: it panics with a symbolised backtrace, ends with a failing code, and the next start has
everything that was acknowledged.

usage: guest_fault_test.py [unittest arguments]

The product has no command for that. While clients write, the first instructions of the function that carries out commands
are overwritten through QEMU's gdb stub, so the next command, in its client's fiber, does what they say.
"""
import itertools
import os
import pathlib
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "vm_crash")]
from client_support import Connection  # noqa: E402
from history import Expectation, Writer, all_keys, read_keys  # noqa: E402
from support import acceptance  # noqa: E402
from support.gdb_stub import GdbStub  # noqa: E402
from support.kelda_process import KELDA, Kelda, check, free_port  # noqa: E402

PANIC = 101
FUNCTION = "kelda::server::Client::execute"
WRITERS = 3
READ_RAX, WRITE_RAX = "48 8b 00", "48 89 00"  # mov (%rax), %rax; mov %rax, (%rax)

# name: (x86-64 code, what the heading of the panic says)
FAULTS = {
    "null read": ("31 c0 " + READ_RAX, "null pointer access, read of 0x0000000000000000"),
    "null write": ("31 c0 " + WRITE_RAX, "null pointer access, write to 0x0000000000000000"),
    "null call": ("31 c0 ff d0", "null pointer access, jump to 0x0000000000000000"),
    "wild read": ("48 b8 00 90 78 56 34 12 00 00 " + READ_RAX, "access to unmapped memory, read of 0x0000123456789000"),
    "wild write": ("48 b8 00 90 78 56 34 12 00 00 " + WRITE_RAX, "access to unmapped memory, write to 0x0000123456789000"),
    "wild call": ("48 b8 00 90 78 56 34 12 00 00 ff d0", "jump to memory that is not code, jump to 0x0000123456789000"),
    "no address": ("48 b8 00 00 00 00 00 00 00 80 " + READ_RAX, "general protection"),
    "write to code": ("48 8d 05 00 00 00 00 " + WRITE_RAX, "write to read-only memory"),
    "run the stack": ("ff d4", "jump to memory that is not code"),  # call *%rsp
    "stack overflow": ("e8 fb ff ff ff", "stack overflow"),  # calls itself
    "division by zero": ("31 c9 f7 f1", "divide error"),
    "bad opcode": ("0f 0b", "invalid opcode"),
    "unknown system call": ("b8 29 00 00 00 0f 05", "system call that the libc shim does not serve: socket, number 41"),
    # An interrupt table that ends before the page fault's gate.
    "double fault": ("48 83 ec 10 0f 01 0c 24 66 c7 04 24 cf 00 0f 01 1c 24 31 c0 " + READ_RAX, "double fault"),
}


def address_of(function):
    done = subprocess.run(["nm", "-C", KELDA], capture_output=True, text=True, check=True)
    found = [line.split()[0] for line in done.stdout.splitlines() if f" T {function}(" in line and "[clone" not in line]
    assert len(found) == 1, f"{function}: {found}"
    return int(found[0], 16)


class Faults(acceptance.Case):
    mode = "vm"

    def breaks(self, name):
        code, heading = FAULTS[name]
        disk, gdb_port = self.folder / "disk", free_port()
        server = self.server(disk, create="48M", memory="128M", extra=["--qemu=-gdb", f"--qemu=tcp:127.0.0.1:{gdb_port}"])
        events, stop = [], threading.Event()
        numbers = itertools.count(1)
        writers = [Writer(i, server.port, events, numbers, f"{name}{i}", stop) for i in range(WRITERS)]
        for writer in writers:
            writer.start()
        while len(events) < 200:
            time.sleep(0.01)
        stub = GdbStub(gdb_port)
        stub.write_memory(address_of(FUNCTION), bytes.fromhex(code))
        stub.detach()
        self.assertEqual(server.process.wait(60), PANIC, server.output())
        server.reader.join(5)
        for writer in writers:
            writer.join(60)
            self.assertIsNone(writer.failure)
        panic = [line for line in server.lines if line.startswith("kelda: panic on cpu ")]
        self.assertEqual(len(panic), 1, server.output())
        self.assertIn(heading, panic[0])
        for wanted in (f" {FUNCTION}+0x", " kelda::server::ConnectionLoop::", "kelda: end of panic report"):
            self.assertIn(wanted, server.output())
        self.recovers(disk, events)

    def recovers(self, disk, events):
        expectation = Expectation()
        for event in events:
            expectation.take(event)
        for mode in ("vm", "hosted"):
            again = self.server(disk, mode=mode, memory="128M")
            with Connection("127.0.0.1", again.port, timeout=60) as connection:
                self.assertEqual(expectation.problems(read_keys(connection, all_keys(events))), [])
            self.assertEqual(again.stop(), 0, again.output())
            code, text = check(disk)
            self.assertEqual(code, 0, text)


def add_tests():
    for name in FAULTS:
        setattr(Faults, "test_" + name.replace(" ", "_"), lambda self, name=name: self.breaks(name))


add_tests()

if __name__ == "__main__":
    import unittest
    unittest.main(verbosity=2)
