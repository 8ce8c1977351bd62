#!/usr/bin/python3
"""What `kelda vm` can do: other commands in the guest, machines, sizes, the printed command, gdb.

usage: vm_test.py [unittest arguments]
"""
import calendar
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest
import unittest.mock

import redis

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support import acceptance, passt  # noqa: E402
from support.kelda_process import KELDA, check, children, free_port  # noqa: E402


class GuestCommands(acceptance.Case):
    mode = "vm"

    def test_version(self):
        hosted = self.kelda("version")
        self.assertEqual(self.kelda("vm", "--", "version"), hosted)
        self.assertEqual(hosted[0], 0)

    def test_check(self):
        disk = self.new_disk()
        code, text = self.kelda("vm", "--disk", disk, "--", "check", "/dev/vda")
        self.assertEqual(code, 0, text)
        self.assertIn("\nsound\n", text)
        code, as_json = self.kelda("vm", "--disk", disk, "--", "check", "--json", "/dev/vda")
        self.assertEqual(code, 0)
        self.assertTrue(as_json.startswith('{"disk":"/dev/vda","sound":true'), as_json)

    def test_bench(self):
        disk = self.folder / "disk"
        code, text = self.kelda("vm", "--disk", disk, "--create", "256M", "--", "bench", "kv", "--records", "10000", "--seconds", "1")
        self.assertEqual(code, 0, text)
        self.assertRegex(text, r"[1-9]\d* operations in .* on bare")
        code, text = check(disk)
        self.assertEqual(code, 0, text)
        self.assertNotIn("tree bench", text)

    def test_exit_codes_pass_through(self):
        self.assertEqual(self.kelda("vm", "--", "check", "--nonsense")[0], 2)
        self.assertEqual(self.kelda("vm", "--", "check", "/dev/vda")[0], 1)


class Machines(acceptance.Case):
    mode = "vm"

    def serves(self, **options):
        server = self.server(self.folder / "disk", create="64M", **options)
        client = server.client()
        count = int(client.incr("visits"))
        client.set("big", b"b" * 1_000_000)
        self.assertEqual(client.get("big"), b"b" * 1_000_000)
        self.assertEqual(server.stop(), 0, server.output())
        return count, server

    def test_each_machine_type(self):
        for number, machine in enumerate(("q35", "pc", "microvm")):
            count, _ = self.serves(machine=machine)
            self.assertEqual(count, number + 1)

    def test_cpus(self):
        for cpus in (1, 4):
            _, server = self.serves(cores=cpus)
            self.assertIn(f"{cpus} of {cpus} CPUs", server.output())

    def test_64_mib(self):
        for machine in ("q35", "microvm"):
            self.serves(machine=machine, memory="64M")

    def test_passt_instead_of_our_own_network(self):
        if not passt.starts():
            self.skipTest(passt.NEEDS)
        self.serves(extra=("--net", "passt"))

    def test_without_passt(self):
        path = os.environ["PATH"]
        self.addCleanup(os.environ.__setitem__, "PATH", path)
        folder = self.folder / "bin"
        folder.mkdir()
        (folder / "qemu-system-x86_64").symlink_to(shutil.which("qemu-system-x86_64"))
        os.environ["PATH"] = str(folder)
        disk = self.folder / "never"
        code, text = self.kelda("vm", "--disk", disk, "--create", "32M", "--net", "passt")
        self.assertEqual(code, 1, text)
        self.assertIn("passt is not installed", text)
        self.assertFalse(disk.exists())
        self.serves()

    def test_odd_names(self):
        """Names with what shells, QEMU's options and QEMU's protocols care about, as seen from the folder they are in."""
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        for odd in (self.folder / "a, b=c 'd'", "2026-11-30T22:49.disk", "file:x", "fat:x", "nbd:,,x", "json:{}", "host_device:x", "a\nb", "%s"):
            server = self.server(odd, create="32M")
            self.assertTrue(server.client().set("a", 1))
            self.assertEqual(server.stop(), 0, server.output())
            self.assertEqual(check(self.folder / odd)[0], 0, odd)
        code, text = self.kelda("vm", "--disk=-x", "--", "check", "/dev/vda")
        self.assertIn("create it by giving its size", text)
        shutil.copyfile("fat:x", "-x")
        code, text = self.kelda("vm", "--disk=-x", "--", "check", "/dev/vda")
        self.assertEqual(code, 0, text)


class Started(acceptance.Case):
    mode = "vm"

    def start(self, *arguments, ready=True):
        process = subprocess.Popen([KELDA, "vm", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, env=self.environment())
        self.addCleanup(self.end, process)
        self.seen = ""
        while ready and "ready: " not in self.seen:
            line = process.stdout.readline()
            self.assertNotEqual(line, "", self.seen)
            self.seen += line
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()

    def announced(self):
        return re.search(r"^ready: redis://([\d.]+):(\d+)$", self.seen, re.M).groups()


class Addresses(Started):
    def test_any_free_port_and_localhost(self):
        disk = self.folder / "disk"
        for resp, address in (("localhost:0", "127.0.0.1"), ("127.0.0.1:0", "127.0.0.1"), (f"localhost:{free_port()}", "127.0.0.1")):
            process = self.start("--disk", disk, "--create", "32M", "--resp", resp)
            host, port = self.announced()
            self.assertEqual(host, address)
            self.assertNotEqual(port, "0")
            if not resp.endswith(":0"):
                self.assertEqual(port, resp.split(":")[1])
            self.assertTrue(redis.Redis(host=host, port=int(port), socket_timeout=60).ping())
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(60), 0)

    def test_serve_as_the_guests_command(self):
        """It listens where its clients come from, and says where that is."""
        disk = self.new_disk()
        for more, words in (([], []), (["--resp", "0.0.0.0:7001"], [])):
            port = free_port()
            process = self.start("--disk", disk, "--resp", f"127.0.0.1:{port}", "--", "serve", "--disk", "/dev/vda", *more)
            self.assertEqual(self.announced(), ("127.0.0.1", str(port)))
            self.assertEqual(redis.Redis(port=port, socket_timeout=60).get("key1"), b"value1")
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(60), 0)
        code, text = self.kelda("vm", "--disk", disk, "--resp", f"127.0.0.1:{free_port()}", "--", "serve", "--disk", "/dev/vda", "--resp", "127.0.0.1:6379")
        self.assertEqual(code, 1, text)
        self.assertIn("own loopback", text)

    def test_its_processes_are_killed(self):
        """QEMU, or the network: what has happened is said, and the exit code is not that of success."""
        disk = self.folder / "disk"
        for victim, number, words, wanted in (("qemu-system", signal.SIGKILL, "signal 9", 137), ("qemu-system", signal.SIGTERM, "from outside", 143),
                                              ("user-network", signal.SIGKILL, "network has ended", 1)):
            process = self.start("--disk", disk, "--create", "32M", "--resp", "127.0.0.1:0")
            host, port = self.announced()
            redis.Redis(host=host, port=int(port), socket_timeout=60).set("a", "1")
            for pid in children(process.pid):
                if victim.encode() in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, number)
            text, _ = process.communicate(timeout=60)
            self.assertEqual(process.returncode, wanted, text)
            self.assertIn(words, text)
            self.assertEqual("closed cleanly" in text, victim == "user-network", text)
            self.assertEqual(check(disk)[0], 0)

    def test_interrupted_command(self):
        """A check that was stopped has not found the disk sound."""
        disk = self.new_disk()
        process = self.start("--disk", disk, "--", "check", "/dev/vda", ready=False)
        process.send_signal(signal.SIGTERM)
        text, _ = process.communicate(timeout=60)
        self.assertNotEqual(process.returncode, 0, text)

    def test_too_little_memory(self):
        code, text = self.kelda("vm", "--disk", self.folder / "disk", "--create", "32M", "--memory", "16M", "--resp", f"127.0.0.1:{free_port()}")
        self.assertEqual(code, 1, text)
        self.assertRegex(text, r"of this machine's [\d.]+ MiB the kernel, the program and its stacks leave [\d.]+ MiB")


class Passwords(Started):
    """Handed to the machine in a way that no other user of the host can read."""

    SECRET = "top secret, isn't it=1"

    def serves(self, *arguments):
        process = self.start("--disk", self.folder / "disk", "--create", "32M", "--resp", "127.0.0.1:0", *arguments)
        host, port = self.announced()
        options = {"host": host, "port": int(port), "socket_timeout": 60}
        with self.assertRaises(redis.AuthenticationError):
            redis.Redis(**options).ping()
        with self.assertRaises(redis.ResponseError):
            redis.Redis(password=self.SECRET + "\n", **options).ping()
        self.assertTrue(redis.Redis(password=self.SECRET, **options).ping())
        shown = [line for line in acceptance.processes_naming(self.SECRET)]
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), 0)
        return shown

    def test_file_on_each_machine_type(self):
        file = self.folder / "pass,word"
        file.write_text(self.SECRET + "\n")
        for machine in ("q35", "pc", "microvm"):
            self.assertEqual(self.serves("--machine", machine, "--password-file", file), [])
        self.assertEqual(self.serves("--password-file", file, "--", "serve", "--disk", "/dev/vda"), [])

    def test_environment_and_command_line(self):
        with unittest.mock.patch.dict(os.environ, KELDA_PASSWORD=self.SECRET):
            self.assertEqual(self.serves(), [])
        shown = self.serves("--password", self.SECRET)
        self.assertEqual(len(shown), 1, shown)  # what the user typed

    def test_printed_command(self):
        file = self.folder / "password"
        file.write_text(self.SECRET)
        command = ["vm", "--disk", self.folder / "disk", "--create", "32M", "--print-command"]
        code, text = self.kelda(*command, "--password-file", file)
        self.assertEqual(code, 0, text)
        self.assertIn(f"file={file}", text)
        self.assertNotIn(self.SECRET, text)
        code, text = self.kelda(*command, "--password", self.SECRET)
        self.assertEqual(code, 1, text)
        self.assertIn("--password-file", text)


class Clocks(acceptance.Case):
    """A machine whose real-time clock is wrong. Under emulation: with KVM the date does not come from that clock."""
    mode = "vm"

    def at(self, date, machine):
        """A server on the disk with the clock at the date: its client, its output, and how far TIME is from the date."""
        server = self.server(self.folder / "disk", create="64M", machine=machine,
                             extra=("--accel", "tcg", "--qemu=-rtc", f"--qemu=base={date}"))
        client = server.client()
        expected = calendar.timegm(time.strptime(date, "%Y-%m-%dT%H:%M:%S"))
        return server, client, client.time()[0] - expected

    def test_centuries(self):
        server, client, late_s = self.at("2050-06-01T12:00:00", "q35")
        self.assertLess(abs(late_s), 30)
        self.assertNotIn("cannot be right", server.output())
        client.set("mortal", "v", ex=1000)
        self.assertEqual(server.stop(), 0, server.output())
        for date, machine in (("1999-12-31T23:00:00", "q35"), ("2099-12-31T23:00:00", "pc"), ("1970-01-02T00:00:00", "microvm"),
                              ("1999-12-31T23:00:00", "microvm"), ("2100-03-01T00:00:00", "q35")):
            server, client, late_s = self.at(date, machine)
            if date < "2090":  # QEMU's own difference to now has 32 bits: what it makes of later dates is wrong as well
                self.assertLess(abs(late_s), 30, (date, machine))
                self.assertIn("clock says " + date[:7], server.output())
            self.assertIn("cannot be right", server.output())
            self.assertEqual(client.get("mortal"), b"v")
            time.sleep(0.3)  # three looks of whoever removes what has expired
            self.assertEqual(client.dbsize(), 1)
            self.assertEqual(server.stop(), 0, server.output())
        server, client, _ = self.at("2050-06-01T13:00:00", "q35")
        self.assertIsNone(client.get("mortal"))
        self.assertEqual(server.stop(), 0, server.output())


class ReadOnlyDisk(acceptance.Case):
    mode = "vm"

    def guest(self, disk, *command):
        """A guest command with the disk behind a device that is read-only."""
        return self.kelda("vm", "--qemu=-drive", f"--qemu=file={disk},if=none,id=fixed,format=raw,readonly=on",
                          "--qemu=-device", "--qemu=virtio-blk-pci,drive=fixed", "--net", "none", "--", *command)

    def test_looking_works_and_serving_is_refused_at_the_start(self):
        clean = self.new_disk()
        unclean = self.folder / "unclean"
        server = self.server(unclean, mode="hosted", create="32M")
        server.client().mset({f"key{i}": "value" for i in range(100)})
        server.kill()
        for disk in (clean, unclean):
            before = disk.read_bytes()
            code, text = self.guest(disk, "check", "/dev/vda")
            self.assertEqual(code, 0, text)
            self.assertIn("\nsound", text)
            code, text = self.guest(disk, "dump", "/dev/vda")
            self.assertEqual(code, 0, text)
            self.assertIn("100 keys dumped", text)
            for command in (("bench", "kv", "--disk", "/dev/vda"), ("selftest", "--disk", "/dev/vda")):
                code, text = self.guest(disk, *command)
                self.assertEqual(code, 1, text)
                self.assertIn("/dev/vda is read-only", text)
            self.assertEqual(disk.read_bytes(), before)


class OneCpu(acceptance.Case):
    """A machine of one CPU under disk load, more fibers than it has memory for: it must come to its end. Emulated, it has
    no memory barriers against its devices (kernel/emulation.h), unless it could have a second CPU, as `kelda vm` says."""
    mode = "vm"

    def loads(self, *qemu):
        code, text = self.kelda("vm", *(f"--qemu={word}" for word in qemu), "--disk", self.folder / "disk", "--create", "1G",
                                "--memory", "96M", "--cpus", "1", "--", "bench", "kv", "--records", "60000",
                                "--value-bytes", "1000", "--fibers", "64", "--seconds", "1", seconds=120)
        self.assertEqual(code, 0, text)
        self.assertRegex(text, r"[1-9]\d* operations in .* on bare")

    def test_as_kelda_starts_it(self):
        self.loads()

    def test_with_no_second_possible(self):
        self.loads("-smp", "1,maxcpus=1")


class Snapshots(acceptance.Case):
    mode = "vm"

    def test_one_snapshot_started_twice(self):
        """Two machines on copies of a disk that a third was writing to: each has all of it, and goes its own way."""
        disk = self.folder / "disk"
        origin = self.server(disk, create="64M")
        client = origin.client()
        count = 2000
        for i in range(count):
            client.set(f"key{i}", f"origin{i}")
        pids = children(origin.process.pid)
        for pid in pids:  # a snapshot shows one moment
            os.kill(pid, signal.SIGSTOP)
        copies = [self.folder / name for name in ("first", "second")]
        for copy in copies:
            shutil.copyfile(disk, copy)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        machines = [self.server(copy) for copy in copies]
        clients = [machine.client() for machine in machines]
        runs = {client.info("server")["run_id"] for client in [*clients, origin.client()]}
        self.assertEqual(len(runs), 3, "two of them are the same server")
        for number, client in enumerate(clients):
            self.assertEqual(client.dbsize(), count)
            client.mset({f"key{i}": f"clone{number}" for i in range(0, count, 2)})
            client.execute_command("KELDA.CHECKPOINT")
        for number, (client, machine, copy) in enumerate(zip(clients, machines, copies)):
            values = client.mget([f"key{i}" for i in range(count)])
            self.assertEqual(values, [f"clone{number}".encode() if i % 2 == 0 else f"origin{i}".encode() for i in range(count)])
            self.assertEqual(machine.stop(), 0, machine.output())
            code, text = check(copy)
            self.assertEqual(code, 0, text)
        self.assertEqual(origin.stop(), 0, origin.output())
        self.assertEqual(check(disk)[0], 0)


class PrintedCommand(acceptance.Case):
    mode = "vm"

    def test_it_boots_when_pasted(self):
        if not passt.starts():  # which the printed command runs, for our own network is part of this program
            self.skipTest(passt.NEEDS)
        disk = self.folder / "json: it's, a disk"
        port = free_port()
        code, text = self.kelda("vm", "--disk", disk.name, "--create", "32M", "--resp", f"127.0.0.1:{port}", "--print-command",
                                cwd=self.folder)
        self.assertEqual(code, 0, text)
        self.assertIn("qemu-system-x86_64", text)
        script = self.folder / "pasted.sh"
        script.write_text(text)
        with open(self.folder / "log", "w") as log:
            shell = subprocess.Popen(["sh", str(script)], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                     env=self.environment(), start_new_session=True, cwd=self.folder)
        self.addCleanup(self.end_group, shell)
        self.addCleanup(self.end_network, re.search(r"/\S*/kelda-passt-\w{16}\.socket", text).group())
        deadline = time.monotonic() + 60
        while "ready: " not in (self.folder / "log").read_text() and time.monotonic() < deadline and shell.poll() is None:
            time.sleep(0.05)
        output = (self.folder / "log").read_text()
        self.assertIn(f"ready: redis://127.0.0.1:{port}", output)
        client = redis.Redis(host="127.0.0.1", port=port, socket_timeout=60)
        client.set("a", "1")
        with self.assertRaises((redis.ConnectionError, redis.TimeoutError)):
            client.execute_command("SHUTDOWN")
            self.fail("an answer came")
        shell.wait(30)
        self.assertIn("closed cleanly", (self.folder / "log").read_text())
        self.assertEqual(check(disk)[0], 0)

    @staticmethod
    def end_network(path):
        """passt ends with QEMU's connection; here if that never came."""
        for process in acceptance.processes_naming(path):
            os.kill(int(process.split(":")[0]), signal.SIGTERM)
        pathlib.Path(path).unlink(missing_ok=True)

    @staticmethod
    def end_group(shell):
        try:
            os.killpg(shell.pid, signal.SIGKILL)  # the session that this test started
        except ProcessLookupError:
            pass
        shell.wait()


@unittest.skipIf(shutil.which("gdb") is None, "needs gdb")
class Debugger(acceptance.Case):
    mode = "vm"

    def test_breakpoint_in_main(self):
        port = free_port()
        machine = subprocess.Popen([KELDA, "vm", "--gdb", str(port), "--", "version"], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment())
        self.addCleanup(self.end, machine)
        time.sleep(1)
        done = subprocess.run(
            ["gdb", "-nx", "-batch", "-ex", "set confirm off", "-ex", "set backtrace past-main on", "-ex", "set tcp connect-timeout 30",
             "-ex", f"target remote 127.0.0.1:{port}", "-ex", "hbreak main", "-ex", "continue", "-ex", "bt",
             "-ex", "info threads", "-ex", "delete", "-ex", "detach", KELDA],
            capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL)
        self.assertRegex(done.stdout, r"#0 +(0x\w+ in )?main ", done.stdout + done.stderr)
        self.assertIn("_start", done.stdout)
        self.assertEqual(machine.wait(60), 0)


    @staticmethod
    def end(machine):
        for _ in range(2):  # the second time without asking the guest, which may be stopped
            if machine.poll() is None:
                machine.send_signal(signal.SIGTERM)
                time.sleep(1)
        machine.wait(20)
        machine.stdout.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
