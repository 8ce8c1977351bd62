"""What the client tests share: a plain RESP connection, and servers started on free ports."""
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time


class Error(str):
    """An error reply."""


class Reply:
    """A reply with its wire type, so that shapes can be compared: Reply('$', b'x'), Reply('*', [...])."""

    def __init__(self, kind, value):
        self.kind, self.value = kind, value

    def __eq__(self, other):
        return isinstance(other, Reply) and self.kind == other.kind and self.value == other.value

    def __repr__(self):
        return f"{self.kind}{self.value!r}"

    def plain(self):
        if self.kind == "-":
            return Error(self.value.decode(errors="replace"))
        if self.kind in "*~>":
            return None if self.value is None else [item.plain() for item in self.value]
        if self.kind == "%":
            return {self.value[i].plain(): self.value[i + 1].plain() for i in range(0, len(self.value), 2)}
        return self.value


class Connection:
    """One connection that sends requests and reads replies, nothing hidden."""

    def __init__(self, host, port, timeout=20):
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", 65536)

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @staticmethod
    def encode(*args):
        parts = [b"*%d\r\n" % len(args)]
        for arg in args:
            data = arg if isinstance(arg, bytes) else str(arg).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
        return b"".join(parts)

    def send(self, *args):
        self.socket.sendall(self.encode(*args))

    def send_raw(self, data):
        self.socket.sendall(data)

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("the server closed the connection")
        kind, rest = chr(line[0]), line[1:-2]
        if kind in "+-":
            return Reply(kind, rest)
        if kind == ":":
            return Reply(kind, int(rest))
        if kind in "$=":
            if rest == b"-1":
                return Reply(kind, None)
            data = self.file.read(int(rest) + 2)
            return Reply(kind, data[:-2])
        if kind in "*~>%":
            if rest == b"-1":
                return Reply(kind, None)
            count = int(rest) * (2 if kind == "%" else 1)
            return Reply(kind, [self.read() for _ in range(count)])
        if kind == "_":
            return Reply(kind, None)
        if kind == "#":
            return Reply(kind, rest == b"t")
        if kind == ",":
            return Reply(kind, float(rest))
        raise ValueError(f"not RESP: {line!r}")

    def call(self, *args):
        self.send(*args)
        return self.read()

    def ask(self, *args):
        """The reply as plain Python data; errors as Error."""
        return self.call(*args).plain()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A server process; ends with the object."""

    def __init__(self, command, **kwargs):
        self.process = subprocess.Popen(command, **kwargs)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def wait_for_port(port, seconds=20):
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class RedisServer(Process):
    """The real one, in memory, on a free port."""

    def __init__(self):
        self.host, self.port = "127.0.0.1", free_port()
        self.directory = tempfile.mkdtemp(prefix="kelda-redis-")
        super().__init__(
            [shutil.which("redis-server") or "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--dir", self.directory, "--enable-debug-command", "no"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_port(self.port)

    def stop(self):
        super().stop()
        shutil.rmtree(self.directory, ignore_errors=True)


class MemoryServer(Process):
    """tests/support/memory_server: the protocol server over a database in memory."""

    def __init__(self, program, *options):
        super().__init__([program, "127.0.0.1:0", *options], stdout=subprocess.PIPE, text=True)
        address = self.process.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"{program} did not start")
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)

    def stop(self):
        if self.process.poll() is None:
            try:
                with Connection(self.host, self.port) as connection:
                    connection.send("SHUTDOWN", "NOSAVE")
                self.process.wait(20)
            except (OSError, subprocess.TimeoutExpired):
                pass
        super().stop()
        self.process.stdout.close()


class GivenServer:
    """One that somebody else has started, as HOST:PORT."""

    def __init__(self, address):
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class KeldaServer:
    """`kelda serve` or `kelda vm` on a new disk; asserts that it ends well."""

    def __init__(self, mode):
        from support.kelda_process import Kelda
        self.directory = tempfile.mkdtemp(prefix="kelda-clients-")
        self.kelda = Kelda(mode, os.path.join(self.directory, "disk"))
        self.host, self.port = "127.0.0.1", self.kelda.port

    def __enter__(self):
        self.kelda.start()
        return self

    def __exit__(self, *_):
        try:
            code = self.kelda.stop()
            if code != 0:
                raise AssertionError(f"the server ended with {code}:\n{self.kelda.output()}")
        finally:
            self.kelda.kill()
            shutil.rmtree(self.directory, ignore_errors=True)


def server_from_argument():
    """The first argument (removed): hosted or vm, HOST:PORT of a running server, or the path of memory_server."""
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} hosted|vm|HOST:PORT|MEMORY_SERVER [unittest arguments]")
    argument = sys.argv.pop(1)
    if argument in ("hosted", "vm"):
        return KeldaServer(argument)
    return MemoryServer(argument) if os.path.sep in argument and os.access(argument, os.X_OK) else GivenServer(argument)
