#!/usr/bin/python3
"""Every way to end it: SHUTDOWN, SIGTERM, Ctrl-C, ACPI power-off, kill -9. What the next start says of it.

usage: stop_test.py hosted|vm [unittest arguments]
"""
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time

import redis

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support import acceptance  # noqa: E402
from support.kelda_process import KELDA, check, children, free_port  # noqa: E402
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

    def test_hang_up_and_quit(self):
        for number in (signal.SIGHUP, signal.SIGQUIT):
            server = self.started()
            server.process.send_signal(number)
            self.assert_clean_end(server)
            self.disk.unlink()

    def start_with_pipe(self, *more, **options):
        """The server as a process with its console in a pipe, ready: (process, port)."""
        self.disk = self.folder / "disk"
        port = free_port()
        command = [KELDA, *self.start_arguments("--disk", str(self.disk), "--create", "64M", "--resp", f"127.0.0.1:{port}", *more)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, env=self.environment(), **options)
        self.addCleanup(self.end_process, process)
        lines = []
        while not lines or not lines[-1].startswith("ready: "):
            lines.append(process.stdout.readline())
            self.assertNotEqual(lines[-1], "", "".join(lines))
        return process, redis.Redis(host="127.0.0.1", port=port, socket_timeout=60), lines

    @staticmethod
    def end_process(process):
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()

    def test_nohup(self):
        """Whoever had SIGHUP ignored before the start meant it."""
        process, client, _ = self.start_with_pipe(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        self.assertTrue(client.set("a", "1"))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), 0)

    def test_console_that_nobody_reads(self):
        """A server does not end because its console has."""
        process, client, _ = self.start_with_pipe()
        process.stdout.close()
        self.assertTrue(client.set("a", "1"))
        if self.mode == "vm":
            process.send_signal(signal.SIGTERM)  # said on the console, by both sides
        else:
            client.execute_command("KELDA.CHECKPOINT")
            process.send_signal(signal.SIGHUP)
        self.assertEqual(process.wait(60), 0)
        code, text = check(self.disk)
        self.assertEqual(code, 0, text)
        self.assertIn("log: closed cleanly", text)

    def test_lines_have_their_time(self):
        process, client, lines = self.start_with_pipe()
        client.set("a", "1")
        timed = [line for line in lines if not line.startswith("ready: ") and line.strip()]
        self.assertGreaterEqual(len(timed), 4, lines)
        for line in timed:
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S")
        now = time.time()
        told = time.mktime(time.strptime(timed[0][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
        self.assertLess(abs(now - told), 60)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        self.assertEqual(process.wait(60), 0)
        self.assertRegex(rest, r"\dZ stopping\n")
        self.assertIn("\nclosed cleanly\n", rest)

    def test_signal_while_it_starts(self):
        """At any moment: it ends by itself, and what is on the disk is sound."""
        count = int(os.environ.get("KELDA_MOMENTS", "5"))
        machines = ("q35", "pc", "microvm") if self.mode == "vm" else ("",)
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        latest = 2.5 if self.mode == "vm" else 0.3
        for number in range(count):
            delay = latest * (number + random.random()) / count
            running = []
            for machine, asked in zip(machines, signals[number % 3:] + signals):
                disk = self.folder / f"disk{machine}{number}"
                more = ["--machine", machine] if machine else []
                command = [KELDA, *self.start_arguments("--disk", str(disk), "--create", "64M", *more)]
                running.append((disk, asked, subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                                              stderr=subprocess.STDOUT, text=True, env=self.environment())))
            time.sleep(delay)
            for _, asked, process in running:
                process.send_signal(asked)
            for disk, asked, process in running:
                text, _ = process.communicate(timeout=60)
                # Before the program has begun, the signal ends it: nothing was started by then.
                self.assertIn(process.returncode, (0, -asked) if delay < 0.1 or self.mode == "hosted" else (0,), f"{delay} {text}")
                if disk.exists() and "disk was formatted" in text:
                    self.assertIn("log: closed cleanly", check(disk)[1], f"{delay} {text}")
                disk.unlink(missing_ok=True)

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


class Output(acceptance.Case):
    """Of commands whose output is what they are for."""

    def setUp(self):
        super().setUp()
        if self.mode != "hosted":
            self.skipTest("a machine's console belongs to QEMU")

    def test_it_cannot_be_written(self):
        disk = self.new_disk()
        for command in (["check", disk], ["check", "--json", disk], ["dump", disk], ["dump", "--format", "json", disk], ["version"],
                        ["check", "--help"], ["vm", "--disk", disk, "--print-command"], ["sim", "--seconds-of-virtual-time", "0.1"]):
            with open("/dev/full", "w") as full:
                done = subprocess.run([KELDA, *map(str, command)], stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True,
                                      env=self.environment(), timeout=60)
            self.assertEqual(done.returncode, 1, f"{command} {done.stderr}")
            self.assertRegex(done.stderr, "cannot (be written|write)", command)

    def test_errors_stand_behind_what_was_before(self):
        """Also where stdout is a file, which the C library buffers by default."""
        disk = self.folder / "disk"
        disk.write_bytes(b"somebody's" * 10_000_000)
        path = self.folder / "log"
        with open(path, "w") as log:
            done = subprocess.run([KELDA, *self.start_arguments("--disk", str(disk))], stdin=subprocess.DEVNULL, stdout=log,
                                  stderr=subprocess.STDOUT, timeout=60)
        lines = path.read_text().splitlines()
        self.assertEqual(done.returncode, 1)
        self.assertRegex(lines[0], r"Z kelda \d")
        self.assertTrue(lines[-1].startswith("kelda serve: "), lines)


class Passwords(acceptance.Case):
    """The VM's are in vm_test.py."""

    def setUp(self):
        super().setUp()
        if self.mode != "hosted":
            self.skipTest("in vm_test.py")

    def test_file_and_environment(self):
        file = self.folder / "password"
        for content in ("se cret", "se cret\n", "se cret\r\n"):
            file.write_text(content, newline="")
            server = self.server(self.folder / "disk", create="32M", extra=["--password-file", str(file)])
            with self.assertRaises(redis.AuthenticationError):
                server.client().ping()
            self.assertTrue(server.client(password="se cret").ping())
            self.assertEqual(acceptance.processes_naming("se cret"), [])
            self.assertEqual(server.stop(), 0)
        os.environ["KELDA_PASSWORD"] = "of the environment"
        try:
            server = self.server(self.folder / "disk", create="32M")
        finally:
            del os.environ["KELDA_PASSWORD"]
        self.assertTrue(server.client(password="of the environment").ping())
        self.assertEqual(server.stop(), 0)

    def test_none_that_is_empty(self):
        disk = self.new_disk()
        empty = self.folder / "empty"
        empty.write_text("\n")
        self.assert_refused(["--password is empty"], "--disk", str(disk), "--password", "")
        self.assert_refused(["empty password"], "--disk", str(disk), "--password-file", str(empty))
        self.assert_refused(["No such file"], "--disk", str(disk), "--password-file", str(self.folder / "none"))
        os.environ["KELDA_PASSWORD"] = ""
        try:
            self.assert_refused(["KELDA_PASSWORD", "empty"], "--disk", str(disk))
        finally:
            del os.environ["KELDA_PASSWORD"]


if __name__ == "__main__":
    acceptance.run([Stop, Output, Passwords])
