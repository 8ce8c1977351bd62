"""Starts, watches, kills and checks a Kelda server, as a process or as a VM, for the tests that use real clients.

Servers bind to 127.0.0.1 on a free port and are ended by pid; everything they write lies in the caller's folder.
"""
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
KELDA = os.environ.get("KELDA", str(ROOT / "build" / "kelda"))
READY_SECONDS = 60


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def children(pid):
    """Pids of the direct children, from /proc."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
        except OSError:
            continue
        if int(stat.rsplit(")", 1)[1].split()[1]) == pid:
            found.append(int(entry))
    return found


class Kelda:
    """One server. mode: "hosted" or "vm"."""

    def __init__(self, mode, disk, memory="256M", create="1G", cores=2, extra=(), machine="q35"):
        self.mode, self.disk, self.memory, self.create, self.cores = mode, str(disk), memory, create, cores
        self.extra, self.machine = list(extra), machine
        self.port = free_port()
        self.process = None
        self.lines = []

    def command(self):
        resp = f"127.0.0.1:{self.port}"
        common = ["--disk", self.disk, "--create", self.create, "--memory", self.memory, "--resp", resp]
        if self.mode == "vm":
            return [KELDA, "vm", *common, "--cpus", str(self.cores), "--machine", self.machine, *self.extra]
        return [KELDA, "serve", *common, "--cores", str(self.cores), *self.extra]

    def start(self):
        self.started = time.monotonic()
        self.process = subprocess.Popen(self.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        stdin=subprocess.DEVNULL, text=True, errors="replace")
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready.wait(0.02):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{self.mode} server did not get ready:\n" + self.output())
        return self

    def _read(self):
        with self.process.stdout:
            for line in self.process.stdout:
                self.lines.append(line.rstrip("\n"))
                if line.startswith("ready:"):
                    self.ready_after = time.monotonic() - self.started
                    self.ready.set()

    def client(self, **options):
        import redis  # here: not every user of this module needs it
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=options.pop("socket_timeout", 120), **options)

    def output(self):
        return "\n".join(self.lines)

    def says(self, text, seconds=10):
        """Is there, or comes, a line with the text? What is printed comes to us a moment later."""
        deadline = time.monotonic() + seconds
        while not any(text in line for line in self.lines):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def kill(self):
        """kill -9 of the process that holds the disk: the server, or QEMU."""
        if self.process is None:
            return
        if self.mode == "vm":
            for pid in children(self.process.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        else:
            self.process.kill()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(5)

    def stop(self):
        """Asks it to stop; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.mode} server did not stop:\n" + self.output())
        self.reader.join(5)
        return code

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process is not None and self.process.poll() is None:
            self.kill()


def check(disk):
    """kelda check; returns (exit code, output)."""
    done = subprocess.run([KELDA, "check", str(disk)], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr
