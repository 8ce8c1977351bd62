#!/usr/bin/python3
"""Many connections, and bad ones: a thousand at once, a storm of short ones, half-open ones, clients that never read.

usage: connections_test.py hosted|vm [unittest arguments]
"""
import pathlib
import resource
import selectors
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from client_support import Connection  # noqa: E402
from support import acceptance  # noqa: E402
from support.kelda_process import check  # noqa: E402

COUNT = 1000
LAZY = 4
WRITE_TIMEOUT_S = 15


def resident_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


class Connections(acceptance.Case):
    def setUp(self):
        super().setUp()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 4 * COUNT:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * COUNT, hard), hard))
        self.disk = self.folder / "disk"
        self.kelda_server = self.server(self.disk, create="128M", extra=["--write-timeout", str(WRITE_TIMEOUT_S)])

    def tearDown(self):
        with self.connect() as c:
            self.assertEqual(c.ask("PING"), b"PONG")
        self.assertEqual(self.kelda_server.stop(), 0, self.kelda_server.output())
        self.assertEqual(check(self.disk)[0], 0)

    def connect(self):
        return Connection("127.0.0.1", self.kelda_server.port, timeout=90)

    def open_all(self, count):
        """`count` connections begun at once, none waiting for the other."""
        pending = selectors.DefaultSelector()
        sockets = []
        for _ in range(count):
            s = socket.socket()
            self.addCleanup(s.close)
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", self.kelda_server.port))
            pending.register(s, selectors.EVENT_WRITE)
            sockets.append(s)
        deadline = time.monotonic() + 90
        while pending.get_map():
            self.assertLess(time.monotonic(), deadline, f"{len(pending.get_map())} connections do not open")
            for key, _ in pending.select(1):
                self.assertEqual(key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
                pending.unregister(key.fileobj)
        return sockets

    def exchange(self, sockets, requests, replies):
        """Sends its request on every socket, then reads until each has its reply, or one that begins so."""
        reader = selectors.DefaultSelector()
        for s, request, reply in zip(sockets, requests, replies):
            self.assertEqual(s.send(request), len(request))
            reader.register(s, selectors.EVENT_READ, [b"", reply])
        deadline = time.monotonic() + 120
        while reader.get_map():
            self.assertLess(time.monotonic(), deadline, f"{len(reader.get_map())} connections have no answer")
            for key, _ in reader.select(1):
                data = key.fileobj.recv(4096)
                self.assertNotEqual(data, b"", "closed by the server")
                key.data[0] += data
                if len(key.data[0]) >= len(key.data[1]) and key.data[0].endswith(b"\r\n"):
                    self.assertEqual(key.data[0][:len(key.data[1])], key.data[1])
                    reader.unregister(key.fileobj)

    def test_a_thousand_at_once(self):
        sockets = self.open_all(COUNT)
        self.exchange(sockets, [b"PING\r\n"] * COUNT, [b"+PONG\r\n"] * COUNT)
        numbers = [str(i).encode() for i in range(COUNT)]
        self.exchange(sockets, [Connection.encode("SET", b"key" + n, b"value" + n) for n in numbers], [b"+OK\r\n"] * COUNT)
        self.exchange(sockets, [Connection.encode("GET", b"key" + n) for n in numbers],
                      [b"$%d\r\nvalue%s\r\n" % (len(n) + 5, n) for n in numbers])
        self.exchange(sockets, [b"*1\r\n$5\r\nMULTI\r\n" + Connection.encode("INCR", "count") + b"*1\r\n$4\r\nEXEC\r\n"] * COUNT,
                      [b"+OK\r\n+QUEUED\r\n*1\r\n"] * COUNT)
        with self.connect() as c:
            self.assertEqual(c.ask("GET", "count"), str(COUNT).encode())
            self.assertIn(b"connected_clients:%d" % (COUNT + 1), c.ask("INFO", "clients"))
        for s in sockets:
            s.close()
        with self.connect() as c:
            deadline = time.monotonic() + 60
            while b"connected_clients:1\r" not in c.ask("INFO", "clients"):
                self.assertLess(time.monotonic(), deadline, c.ask("INFO", "clients"))
                time.sleep(0.1)

    def test_storm_of_short_connections(self):
        for round_number in range(5):
            sockets = self.open_all(200)
            for number, s in enumerate(sockets):
                if number % 3 == 0:
                    s.send(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1000\r\nhalf of it")
                elif number % 3 == 1:
                    s.send(b"PING\r\n")
                if number % 2 == 0:  # a reset instead of an orderly end
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                s.close()
        with self.connect() as c:
            self.assertEqual(c.ask("EXISTS", "a"), 0)

    def test_half_open(self):
        """They send nothing, or half a request, or close their side only: others do not wait for them."""
        silent = self.open_all(100)
        halves = self.open_all(100)
        for s in halves:
            s.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\nabc")
        closed = self.open_all(100)
        for s in closed:
            s.send(b"PING\r\n")
            s.shutdown(socket.SHUT_WR)
        with self.connect() as c:
            for i in range(50):
                start = time.monotonic()
                self.assertEqual(c.ask("SET", f"other{i}", "x"), b"OK")
                self.assertLess(time.monotonic() - start, 20)
        for s in closed:  # those have their answer, and then the end
            s.settimeout(60)
            self.assertEqual(s.recv(100), b"+PONG\r\n")
            self.assertEqual(s.recv(100), b"")
        self.exchange(silent, [b"PING\r\n"] * len(silent), [b"+PONG\r\n"] * len(silent))

    def test_clients_that_never_read(self):
        """Their replies are bounded, they are closed after the write time-out, and nobody else notices."""
        with self.connect() as c:
            c.ask("SET", "big", b"x" * 1_000_000)
        pids = [self.kelda_server.process.pid] if self.mode == "hosted" else []
        before = sum(map(resident_kib, pids))
        lazy = self.open_all(LAZY)
        for s in lazy:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.send(Connection.encode("GET", "big") * 500)  # half a gigabyte of replies each
        start = time.monotonic()
        with self.connect() as c:
            slowest = 0
            while time.monotonic() - start < 5:
                asked = time.monotonic()
                self.assertEqual(c.ask("SET", "mine", "y"), b"OK")
                self.assertEqual(c.ask("GET", "mine"), b"y")
                slowest = max(slowest, time.monotonic() - asked)
            self.assertLess(slowest, 5)
            if pids:
                self.assertLess(sum(map(resident_kib, pids)) - before, 256 << 10)
            while b"connected_clients:1\r" not in (told := c.ask("INFO", "clients")):
                self.assertLess(time.monotonic() - start, 150, told)
                time.sleep(1)
            self.assertGreater(time.monotonic() - start, WRITE_TIMEOUT_S - 1)


if __name__ == "__main__":
    acceptance.run([Connections])
