#!/usr/bin/python3
"""Clients that mean harm: storms of connections, slow readers and writers, endless pipelines, requests without bound.

Each attack runs beside a well-behaved client, which must get its answers all the while, and leaves the server within its
memory. usage: hostile_clients_test.py hosted|vm [unittest arguments]    KELDA_FIGURES in the environment prints latencies.
"""
import ctypes
import json
import os
import pathlib
import re
import resource
import selectors
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from client_support import Connection, Error  # noqa: E402
from support import acceptance  # noqa: E402
from support.kelda_process import Kelda, check  # noqa: E402

MEMORY_MIB = 128
WRITE_TIMEOUT = 3
LIMITS = ["--write-timeout", str(WRITE_TIMEOUT), "--tcp-keepalive", "10", "--client-memory", "16M", "--request-limit", "4M", "--reply-limit", "4M"]
ATTACK_SECONDS = 4
RESET = struct.pack("ii", 1, 0)


def stand_by(port, value_bytes):
    """A well-behaved client: asks, waits for the answer, asks again, until its input ends; then tells how long it waited."""
    value, seconds = b"v" * value_bytes, []
    inputs = selectors.DefaultSelector()
    inputs.register(sys.stdin, selectors.EVENT_READ)
    with Connection("127.0.0.1", port, timeout=60) as c:
        while not inputs.select(0.002):
            begin = time.monotonic()
            for request, reply in ((("SET", "mine", value), b"OK"), (("GET", "mine"), value)):
                if (answer := c.ask(*request)) != reply:
                    raise AssertionError(f"{request[0]}: {answer[:100]!r}")
            seconds.append((time.monotonic() - begin) / 2)
    print(json.dumps(seconds))


class Bystander:
    """stand_by() in a process of its own, which the attack does not slow down from this side."""

    def __init__(self, port, value_bytes):
        self.command = [sys.executable, __file__, "stand-by", str(port), str(value_bytes)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        out, self.fault = self.process.communicate(timeout=120)
        self.seconds = json.loads(out) if self.process.returncode == 0 else []

    def percentile(self, part):
        return sorted(self.seconds)[int(part * (len(self.seconds) - 1))] * 1000


def resident_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


class Namespace:
    """A network of its own, which ends with the object; root only."""

    CLONE_NEWNET = 0x40000000

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        self.enter = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net"]
        host = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 10
        while os.readlink(f"/proc/{self.holder.pid}/ns/net") == host:
            if self.holder.poll() is not None or time.monotonic() > deadline:
                raise unittest.SkipTest("no network namespaces here")
            time.sleep(0.01)

    def ip(self, *arguments):
        subprocess.run([*self.enter, "ip", *arguments], check=True)

    def connect(self, address, port):
        """A connection from inside: a thread may live in another network than the rest of its process."""
        made = []

        def inside():
            with open(f"/proc/{self.holder.pid}/ns/net") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), self.CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(Connection(address, port, timeout=30))

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        return made[0]

    def close(self):
        self.holder.communicate()


class KeldaInNamespace(Kelda):
    ADDRESS, PEER = "192.0.2.1", "192.0.2.2"

    def command(self):
        return [*self.namespace.enter, *(word.replace("127.0.0.1", self.ADDRESS) for word in super().command())]


class DeadPeers(acceptance.Case):
    KEEPALIVE = 3

    def setUp(self):
        if self.mode == "vm":
            self.skipTest("the machine's own TCP: net_frames_test")
        if os.geteuid() != 0 or not shutil.which("ip"):
            self.skipTest("needs root and `ip`, to make a network whose cable can be pulled")
        super().setUp()
        self.here, self.there = Namespace(), Namespace()
        self.addCleanup(self.there.close)
        self.addCleanup(self.here.close)
        self.here.ip("link", "set", "lo", "up")
        self.here.ip("link", "add", "near", "type", "veth", "peer", "name", "far", "netns", str(self.there.holder.pid))
        for namespace, name, address in ((self.here, "near", KeldaInNamespace.ADDRESS), (self.there, "far", KeldaInNamespace.PEER)):
            namespace.ip("address", "add", f"{address}/30", "dev", name)
            namespace.ip("link", "set", name, "up")
        server = KeldaInNamespace("hosted", self.folder / "disk", create="128M",
                                  extra=["--tcp-keepalive", str(self.KEEPALIVE), "--write-timeout", "5"])
        server.namespace = self.here
        self.addCleanup(server.kill)
        self.kelda_server = server.start()

    def connect(self, namespace):
        client = namespace.connect(KeldaInNamespace.ADDRESS, self.kelda_server.port)
        self.addCleanup(client.close)
        self.assertEqual(client.ask("PING"), b"PONG")
        return client

    def test_dead_peers(self):
        """Their cable is pulled: they are closed, one between requests and one amid a request. Who is only silent stays."""
        observer, silent = self.connect(self.here), self.connect(self.here)
        self.connect(self.there)
        self.connect(self.there).send_raw(b"*2\r\n$3\r\nGET\r\n$100\r\nhalf")
        time.sleep(4 * self.KEEPALIVE)  # they answer when they are asked whether they are there
        self.assertIn(b"connected_clients:4\r", observer.ask("INFO", "clients"))
        self.there.ip("link", "set", "far", "down")
        deadline = time.monotonic() + 60
        while b"connected_clients:2\r" not in (told := observer.ask("INFO", "clients")):
            self.assertLess(time.monotonic(), deadline, told)
            time.sleep(0.2)
        self.assertEqual(silent.ask("PING"), b"PONG")
        self.assertEqual(self.kelda_server.stop(), 0, self.kelda_server.output())


class HostileClients(acceptance.Case):
    def setUp(self):
        super().setUp()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(20_000, hard), hard))
        self.kelda_server = self.server(self.folder / "disk", create="256M", memory=f"{MEMORY_MIB}M", extra=LIMITS)
        self.patience = 5 if self.mode == "hosted" else 30

    def tearDown(self):
        with self.connect() as c:
            self.assertEqual(c.ask("PING"), b"PONG")
        self.assertEqual(self.kelda_server.stop(), 0, self.kelda_server.output())
        self.assertEqual(check(self.folder / "disk")[0], 0)

    def connect(self):
        return Connection("127.0.0.1", self.kelda_server.port, timeout=90)

    def raw(self, receive_bytes=None):
        s = socket.socket()
        self.addCleanup(s.close)
        if receive_bytes:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        s.settimeout(60)
        s.connect(("127.0.0.1", self.kelda_server.port))
        return s

    def under(self, attack, value_bytes=100):
        """Runs attack() beside a bystander, who is answered throughout, and looks at the memory."""
        with Bystander(self.kelda_server.port, value_bytes) as calm:
            time.sleep(1)
        with Bystander(self.kelda_server.port, value_bytes) as pressed:
            attack()
        for client in (calm, pressed):
            self.assertEqual(client.fault, "")
        self.assertGreater(len(pressed.seconds), 0)
        self.assertLess(max(pressed.seconds), self.patience)
        if "KELDA_FIGURES" in os.environ:
            print(f"\n  {self.id().split('.')[-1]}: ms at 50% / 99%: alone {calm.percentile(.5):.2f} / {calm.percentile(.99):.2f}, "
                  f"under attack {pressed.percentile(.5):.2f} / {pressed.percentile(.99):.2f}", file=sys.stderr)
        if self.mode == "hosted":
            self.assertLess(resident_mib(self.kelda_server.process.pid), MEMORY_MIB + 64)

    def wait_for_clients(self, count, seconds):
        with self.connect() as c:
            deadline = time.monotonic() + seconds
            while b"connected_clients:%d\r" % (count + 1) not in (told := c.ask("INFO", "clients")):
                self.assertLess(time.monotonic(), deadline, told)
                time.sleep(0.1)

    def test_storm(self):
        opened = [0] * 3

        def storm(number, end):
            while time.monotonic() < end:
                with socket.socket() as s:
                    s.settimeout(30)
                    s.connect(("127.0.0.1", self.kelda_server.port))
                    opened[number] += 1
                    if opened[number] % 2 == 0:
                        s.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1000\r\nhalf")
                    if opened[number] % 3 == 0:
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

        def attack():
            end = time.monotonic() + ATTACK_SECONDS
            threads = [threading.Thread(target=storm, args=(i, end)) for i in range(len(opened))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        self.under(attack)
        self.assertGreater(sum(opened), 200)
        self.wait_for_clients(0, 60)

    def test_slow_writers(self):
        """A byte at a time: each is served in the end, and costs nobody anything."""
        request = Connection.encode("SET", "slow", "x")
        slow = [self.raw() for _ in range(100)]

        def attack():
            for i in range(len(request)):
                for s in slow:
                    s.sendall(request[i:i + 1])
                time.sleep(0.1)

        self.under(attack)
        for s in slow:
            self.assertEqual(s.recv(100), b"+OK\r\n")

    def test_announcements(self):
        """Much announced, nothing sent: it takes no memory from others, whose large values go through."""
        liars = [self.raw() for _ in range(200)]

        def attack():
            for s in liars:
                s.sendall(b"*1000\r\n$4\r\nMSET\r\n$1000000\r\nx")
            time.sleep(ATTACK_SECONDS)

        self.under(attack, value_bytes=1_000_000)

    def test_slow_readers(self):
        """They ask for much and take nothing: they are closed, and the memory for replies is free again."""
        with self.connect() as c:
            c.ask("SET", "big", b"x" * 1_000_000)
        lazy = [self.raw(4096) for _ in range(20)]

        def attack():
            for s in lazy:
                s.sendall(Connection.encode("GET", "big") * 50)
            time.sleep(ATTACK_SECONDS)

        self.under(attack)
        if self.mode == "hosted":
            return self.wait_for_clients(0, 20 * WRITE_TIMEOUT)
        # The host may take all of a short reply (a refusal) for a client: those are idle, not slow.
        with self.connect() as c:
            deadline = time.monotonic() + 20 * WRITE_TIMEOUT
            while re.search(rb" omem=[1-9]", told := c.ask("CLIENT", "LIST")):
                self.assertLess(time.monotonic(), deadline, told)
                time.sleep(0.5)

    def test_slow_readers_of_small_replies(self):
        """Their replies fit the queues below the server, which has nothing left to send: they are closed all the same."""
        if self.mode == "vm":
            self.skipTest("what the host takes for the client is not the machine's any more; net_frames_test has its own stack")
        lazy = [self.raw(4096) for _ in range(20)]
        for s in lazy:
            s.sendall(b"PING\r\n" * 50_000)
        self.wait_for_clients(0, 20 * WRITE_TIMEOUT)

    def test_long_pipeline(self):
        """A client may send much before it reads, within the limit of its requests; all is answered in order."""
        count = 200_000 if self.mode == "hosted" else 50_000

        def attack():
            s = self.raw()
            s.setblocking(False)
            request = b"".join(b"*2\r\n$4\r\nECHO\r\n$6\r\n%06d\r\n" % i for i in range(count))
            wanted = b"".join(b"$6\r\n%06d\r\n" % i for i in range(count))
            got, sent = bytearray(), 0
            deadline = time.monotonic() + 60
            selector = selectors.DefaultSelector()
            selector.register(s, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while len(got) < len(wanted):
                self.assertLess(time.monotonic(), deadline)
                for _, events in selector.select(1):
                    if events & selectors.EVENT_WRITE and sent < len(request):
                        sent += s.send(request[sent:sent + 65536])
                        if sent == len(request):
                            selector.modify(s, selectors.EVENT_READ)
                    if events & selectors.EVENT_READ and sent > len(request) // 4:  # late
                        got += s.recv(1 << 20)
            self.assertEqual(bytes(got), wanted)

        self.under(attack)

    def refusals(self, c):
        """Requests that would take without bound, and what must be answered."""
        value = b"v" * 1_000_000
        for i in range(10):
            self.assertEqual(c.ask("SET", f"big{i}", value), b"OK")
        wide = [f"key{i}" for i in range(100_000)]
        yield c.ask("MGET", *[f"big{i % 10}" for i in range(1000)]), "longer than 4194304 bytes"
        yield c.ask("MSET", *[x for i in range(20) for x in (f"big{i}", value)]), "too large"
        yield c.ask("WATCH", *wide), "too many watched keys"
        yield c.ask("SETRANGE", "grown", 1 << 40, "x"), ""
        yield c.ask("SETRANGE", "grown", 1_048_560, "x"), "value is too large"
        yield c.ask("CLIENT", "SETNAME", "n" * 100_000), "cannot be longer"
        yield c.ask("COMMAND", "INFO", *["get"] * 50_000), "longer than 4194304 bytes"
        yield c.ask("SUBSCRIBE", "channel"), "unknown command"
        yield c.ask("GET", b"k" * 1_000_000), "key is too long"
        c.ask("MULTI")
        replies = [c.ask("GET", "k" * 1000) for _ in range(8000)]
        yield replies[-1], "the transaction is too large"
        yield c.ask("EXEC"), "EXECABORT"

    def test_requests_without_bound(self):
        def attack():
            with self.connect() as c:
                for answer, words in self.refusals(c):
                    self.assertIsInstance(answer, Error, words)
                    self.assertIn(words, answer)
                self.assertEqual(c.ask("SCAN", 0, "COUNT", 1_000_000_000)[0], b"0")
                self.assertEqual(c.ask("PING"), b"PONG")
            for text, words in ((b"*2000000\r\n", b"invalid multibulk length"), (b"*1\r\n$10000000000\r\n", b"invalid bulk length"),
                                (b"*1\r\n" * 1000, b"expected '$', got '*'"), (b"x" * 100_000, b"too big inline request")):
                s = self.raw()
                s.sendall(text)
                self.assertIn(words, s.recv(1000))

        self.under(attack)

    def fill(self):
        """Keys so many and so long that looking at all of them takes a while."""
        with self.connect() as c:
            for begin in range(0, 10_000, 500):
                pairs = [word for i in range(begin, begin + 500) for word in (b"a" * 1000 + b"%05d" % i, b"v")]
                self.assertEqual(c.ask("MSET", *pairs), b"OK")

    # No key matches, which is known only at each key's end.
    SLOW_PATTERN = b"*[zz" + b"z" * 500_000 + b"]" + b"?" * 900 + b"*"

    def endless(self):
        """A client whose EXEC would take many minutes."""
        client = self.raw()
        client.sendall(Connection.encode("MULTI") + Connection.encode("KEYS", b"*b" + b"?" * 900) * 1500 + Connection.encode("EXEC"))
        return client

    def test_long_requests(self):
        self.fill()
        many = [b"k%d" % i for i in range(60_000)]
        requests = [("KEYS", self.SLOW_PATTERN), ("SCAN", "0", "MATCH", self.SLOW_PATTERN, "COUNT", "100000"), ("MGET", *many),
                    ("MSET", *(word for key in many[:30_000] for word in (key, b""))), ("EXISTS", *many), ("DEL", *many),
                    ("CONFIG", "GET", *many), ("COMMAND", "DOCS", *many), ("COMMAND", "INFO", *many), ("INFO", *many),
                    ("CLIENT", "LIST", "ID", *range(1, 60_000)), ("SET", "x", "v", *["NX"] * 60_000), ("WATCH", *many[:10_000]),
                    ("KELDA.RANGE", "-", "+", *["REV"] * 60_000), ("HELLO", "2", *["SETNAME", "x"] * 30_000)]
        encoded = [Connection.encode(*request) for request in requests]
        faults = []

        def insist():
            end = time.monotonic() + ATTACK_SECONDS
            try:
                with self.connect() as c:
                    while time.monotonic() < end:
                        for request in encoded:
                            c.send_raw(request)
                            c.read()
            except Exception as error:  # noqa: BLE001
                faults.append(error)

        def attack():
            threads = [threading.Thread(target=insist) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        self.under(attack)
        self.assertEqual(faults, [])

    def test_work_ends_when_its_client_has_left(self):
        self.fill()

        def busy_seconds():
            with self.connect() as c:
                return float(re.search(rb"cores_busy_seconds:([0-9.]+)", c.ask("INFO", "cpu"))[1])

        clients = [self.endless() for _ in range(3)]
        time.sleep(1)
        begin = busy_seconds()
        time.sleep(1)
        self.assertGreater(busy_seconds() - begin, 0.3, "the requests are too short for this test")
        for client in clients:
            client.close()
        deadline = time.monotonic() + self.patience + 5
        while True:
            begin = busy_seconds()
            time.sleep(1)
            if busy_seconds() - begin < 0.3:
                break
            self.assertLess(time.monotonic(), deadline, "still at work for clients that have left")
        with self.connect() as c:
            self.assertEqual(c.ask("SET", "free", "1"), b"OK")  # the lock on the whole database has gone

    def test_stop_amid_long_requests(self):
        self.fill()
        for _ in range(3):
            self.endless()
        time.sleep(1)
        begin = time.monotonic()
        self.assertEqual(self.kelda_server.stop(), 0, self.kelda_server.output())
        self.assertLess(time.monotonic() - begin, 3 if self.mode == "hosted" else 20)
        self.kelda_server.start()

    def test_many_idle(self):
        count = 2000 if self.mode == "hosted" else 500
        before = resident_mib(self.kelda_server.process.pid) if self.mode == "hosted" else 0
        idle = [self.raw() for _ in range(count)]
        for s in idle:
            s.sendall(b"PING\r\n")
            self.assertEqual(s.recv(100), b"+PONG\r\n")
        self.under(lambda: time.sleep(1))
        if self.mode == "hosted":
            kib = (resident_mib(self.kelda_server.process.pid) - before) * 1024 / count
            self.assertLess(kib, 40, "KiB for an idle client")
        with self.connect() as c:
            self.assertEqual(c.ask("CONFIG", "SET", "maxclients", count // 2), b"OK")
            refused = self.raw()
            refused.sendall(b"PING\r\n")
            self.assertEqual(refused.recv(100), b"-ERR max number of clients reached\r\n")
            for s in idle:
                s.close()
        self.wait_for_clients(0, 60)

    def test_limits_are_told(self):
        with self.connect() as c:
            told = {name: c.ask("CONFIG", "GET", name)[1] for name in (
                "maxmemory-clients", "client-query-buffer-limit", "client-output-buffer-limit", "tcp-keepalive", "maxclients")}
        self.assertEqual(told, {"maxmemory-clients": b"16777216", "client-query-buffer-limit": b"4194304", "maxclients": b"10000",
                                "client-output-buffer-limit": b"normal 4194304 0 3", "tcp-keepalive": b"10"})


if __name__ == "__main__" and sys.argv[1:2] == ["stand-by"]:
    stand_by(int(sys.argv[2]), int(sys.argv[3]))
elif __name__ == "__main__":
    acceptance.run([HostileClients, DeadPeers])
