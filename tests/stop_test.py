#!/usr/bin/python3
"""Every way to end it: SHUTDOWN, SIGTERM, Ctrl-C, ACPI power-off, kill -9. What the next start says of it.

usage: stop_test.py hosted|vm [unittest arguments]
"""
import os
import pathlib
import signal
import socket
import sys
import threading
import time

import redis

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support import acceptance  # noqa: E402
from support.kelda_process import check, children  # noqa: E402
from support.qmp import Monitor  # noqa: E402

CLEAN = "recovery: none needed, it was closed cleanly"


class Stop(acceptance.Case):
    def started(self, **options):
        self.disk = self.folder / "disk"
        server = self.server(self.disk, create="64M", **options)
        server.client().set("a", "1")
        return server

    def ended(self, server, seconds=60):
        code = server.process.wait(seconds)
        server.reader.join(5)
        return code

    def assert_clean_end(self, server):
        self.assertEqual(self.ended(server), 0, server.output())
        self.assertIn("closed cleanly", server.lines)
        code, text = check(self.disk)
        self.assertEqual(code, 0, text)
        self.assertIn("log: closed cleanly", text)
        again = self.server(self.disk)
        self.assertIn(CLEAN, again.output())
        self.assertEqual(again.client().get("a"), b"1")
        self.assertEqual(again.stop(), 0, again.output())

    def test_sigterm(self):
        server = self.started()
        server.process.send_signal(signal.SIGTERM)
        self.assert_clean_end(server)

    def test_ctrl_c(self):
        server = self.started()
        server.process.send_signal(signal.SIGINT)
        self.assert_clean_end(server)

    def test_signal_told_twice_at_once(self):
        """As `timeout` and supervisors do that signal the process and its group."""
        if self.mode != "vm":
            self.skipTest("a process ends at the second request")
        server = self.started()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        self.assert_clean_end(server)

    def test_shutdown_command(self):
        for arguments in ([], ["NOSAVE"], ["SAVE"]):
            server = self.started()
            with self.assertRaises((redis.ConnectionError, redis.TimeoutError)):
                server.client(socket_timeout=30).execute_command("SHUTDOWN", *arguments)
                self.fail("an answer came")
            self.assert_clean_end(server)

    def test_power_button(self):
        if self.mode != "vm":
            self.skipTest("of the VM only")
        path = self.folder / "qmp"
        server = self.started(extra=["--qemu=-qmp", f"--qemu=unix:{path},server=on,wait=off"])
        monitor = Monitor(path)
        monitor.call("system_powerdown")
        self.assert_clean_end(server)
        monitor.close()

    def test_kill_is_recovered(self):
        server = self.started()
        server.kill()
        self.assertIn("to be recovered", check(self.disk)[1])
        again = self.server(self.disk)
        self.assertRegex(again.output(), r"recovery: .* of log, \d+ records, 0 transactions undone")
        self.assertEqual(again.client().get("a"), b"1")
        again.process.send_signal(signal.SIGTERM)
        self.assert_clean_end(again)

    def test_clients_that_stay_hold_nothing_up(self):
        """They are closed, and the port is free at once: the next start needs no patience."""
        server = self.started()
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            client.sendall(b"PING\r\n")
            self.assertEqual(client.recv(100), b"+PONG\r\n")
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(client.recv(100), b"")
            self.assertEqual(self.ended(server), 0, server.output())
            with socket.create_server(("127.0.0.1", server.port)):
                pass
        self.assert_clean_end(server)

    def test_the_parent_is_killed(self):
        """kill -9 of `kelda vm` itself leaves neither QEMU nor its network behind."""
        if self.mode != "vm":
            self.skipTest("of the VM only")
        server = self.started()
        pids = children(server.process.pid)
        self.assertGreaterEqual(len(pids), 2)
        server.process.kill()
        server.process.wait()
        deadline = time.monotonic() + 10
        while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual([pid for pid in pids if os.path.exists(f"/proc/{pid}")], [])
        self.assertEqual(os.listdir(self.scratch), [])
        self.assertEqual(check(self.disk)[0], 0)

    def test_stop_under_load(self):
        """What was acknowledged before the end is there; clients see an end, not a hang."""
        server = self.started()
        acknowledged = [0] * 4

        def write(number):
            client = server.client(socket_timeout=60)
            try:
                while True:
                    client.set(f"w{number}:{acknowledged[number]}", "x" * 200)
                    acknowledged[number] += 1
            except (redis.RedisError, OSError):
                pass

        idle = server.client()
        idle.ping()
        writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for writer in writers:
            writer.start()
        time.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.ended(server), 0, server.output())
        for writer in writers:
            writer.join(90)
            self.assertFalse(writer.is_alive())
        again = self.server(self.disk)
        self.assertIn(CLEAN, again.output())
        client = again.client()
        for number, count in enumerate(acknowledged):
            self.assertGreater(count, 0)
            if count:
                self.assertEqual(client.exists(*[f"w{number}:{i}" for i in range(count)]), count)
        self.assertEqual(again.stop(), 0)


if __name__ == "__main__":
    acceptance.run([Stop])
