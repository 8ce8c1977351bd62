#!/usr/bin/env python3
"""Clients that misbehave, and RESP2 beside RESP3, on plain sockets, against a running server.

    client_raw_test.py hosted|vm|HOST:PORT|MEMORY_SERVER [unittest arguments]

Uses database 9 and empties it. With a server that was told of a short write time-out in seconds, set WRITE_TIMEOUT_S, and the
client that never reads is waited for.
"""
import os
import socket
import sys
import threading
import time
import unittest

from client_support import Connection, Error, server_from_argument

SERVER = None


def connect():
    connection = Connection(SERVER.host, SERVER.port, timeout=60)
    connection.call("SELECT", 9)
    return connection


class Shapes(unittest.TestCase):
    def test_resp3_types(self):
        with connect() as c:
            c.call("FLUSHDB")
            self.assertEqual(c.call("GET", "x").kind, "$")
            hello = c.call("HELLO", 3)
            self.assertEqual(hello.kind, "%")
            self.assertEqual(hello.plain()[b"proto"], 3)
            self.assertEqual(c.call("GET", "x").kind, "_")
            self.assertEqual(c.call("CONFIG", "GET", "databases").kind, "%")
            self.assertEqual(c.call("INFO", "server").kind, "=")
            c.call("MSET", "a", 1, "b", 2)
            self.assertEqual(c.ask("KELDA.RANGE", "-", "+"), [[b"a", b"1"], [b"b", b"2"]])
            self.assertEqual(c.call("HELLO", 2).kind, "*")
            self.assertEqual(c.ask("KELDA.RANGE", "-", "+"), [b"a", b"1", b"b", b"2"])

    def test_pipelines_answer_in_order(self):
        with connect() as c:
            c.call("FLUSHDB")
            c.send_raw(b"".join(Connection.encode("INCR", "n") for _ in range(5000)))
            self.assertEqual([c.read().value for _ in range(5000)], list(range(1, 5001)))

    def test_requests_in_single_bytes(self):
        with connect() as c:
            for byte in Connection.encode("ECHO", b"a\r\nb"):
                c.send_raw(bytes([byte]))
            self.assertEqual(c.read().plain(), b"a\r\nb")


class Misbehaviour(unittest.TestCase):
    def assert_serves(self):
        with connect() as c:
            self.assertEqual(c.ask("PING"), b"PONG")

    def assert_closes_with(self, data, error):
        with connect() as c:
            try:
                c.send_raw(data)
            except OSError:
                pass  # closed while we were sending
            self.assertEqual(c.read().plain(), Error(error))
            self.assertRaises((EOFError, OSError), c.read)
        self.assert_serves()

    def test_garbage(self):
        self.assert_closes_with(b"*1\r\n!garbage\r\n", "ERR Protocol error: expected '$', got '!'")
        self.assert_closes_with(b"*x\r\n", "ERR Protocol error: invalid multibulk length")
        self.assert_closes_with(b"x" * 100_000, "ERR Protocol error: too big inline request")
        self.assert_closes_with(b'"open\r\n', "ERR Protocol error: unbalanced quotes in request")

    def test_random_bytes(self):
        for seed in range(50):
            data = os.urandom(2000) if seed % 2 else b"*3\r\n$3\r\nSET\r\n" + os.urandom(500)
            with connect() as c:
                c.send_raw(data)
                c.socket.shutdown(socket.SHUT_WR)
                while c.file.read(4096):
                    pass
        self.assert_serves()

    def test_bulk_of_ten_gigabytes(self):
        self.assert_closes_with(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$10737418240\r\n", "ERR Protocol error: invalid bulk length")

    def test_half_a_request_and_gone(self):
        for _ in range(20):
            with connect() as c:
                c.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100000\r\nabc")
        self.assert_serves()
        with connect() as c:
            c.call("DEL", "a")
            self.assertEqual(c.ask("EXISTS", "a"), 0)

    def test_value_and_key_over_the_limit(self):
        with connect() as c:
            self.assertIn("value is too large (2097152 bytes; the limit is ", c.ask("SET", "big", b"v" * (2 << 20)))
            self.assertIn("key is too long (2048 bytes; the limit is 1024)", c.ask("SET", b"k" * 2048, "v"))
            self.assertEqual(c.ask("PING"), b"PONG")
            c.call("MULTI")
            self.assertIsInstance(c.ask("SET", "big", b"v" * (2 << 20)), Error)
            self.assertTrue(c.ask("EXEC").startswith("EXECABORT"))

    def test_never_reading_client(self):
        with connect() as c:
            c.call("FLUSHDB")
            c.call("SET", "k", b"x" * 500_000)
        lazy = connect()
        lazy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = Connection.encode("GET", "k") * 1000
        sender = threading.Thread(target=self.send_quietly, args=(lazy, request))
        sender.start()
        slowest, end = 0.0, time.time() + 3
        with connect() as good:
            while time.time() < end:
                start = time.time()
                self.assertEqual(good.ask("PING"), b"PONG")
                slowest = max(slowest, time.time() - start)
            self.assertLess(slowest, 2.0)
            timeout_s = float(os.environ.get("WRITE_TIMEOUT_S", "0"))
            if timeout_s:
                deadline = time.time() + timeout_s + 20
                while f"addr={lazy.socket.getsockname()[0]}:{lazy.socket.getsockname()[1]} " in good.ask("CLIENT", "LIST").decode():
                    self.assertLess(time.time(), deadline, "the client that never reads was not closed")
                    time.sleep(0.2)
        lazy.socket.shutdown(socket.SHUT_RDWR)
        sender.join()
        lazy.close()

    @staticmethod
    def send_quietly(connection, data):
        try:
            connection.send_raw(data)
        except OSError:
            pass

    def test_client_kill(self):
        with connect() as victim, connect() as killer:
            victim_id = victim.ask("CLIENT", "ID")
            self.assertEqual(killer.ask("CLIENT", "KILL", "ID", victim_id), 1)
            self.assertRaises((EOFError, OSError), victim.read)
        self.assert_serves()


if __name__ == "__main__":
    with server_from_argument() as SERVER:
        result = unittest.main(exit=False).result
    sys.exit(0 if result.wasSuccessful() else 1)
