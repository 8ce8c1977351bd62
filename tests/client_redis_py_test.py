#!/usr/bin/env python3
"""What people do with python3-redis, against a running server.

    client_redis_py_test.py hosted|vm|HOST:PORT|MEMORY_SERVER [unittest arguments]

Uses databases 9 to 11 and empties them.
"""
import random
import sys
import threading
import time
import unittest

import redis

from client_support import server_from_argument

SERVER = None


def client(**kwargs):
    kwargs.setdefault("db", 9)
    return redis.Redis(host=SERVER.host, port=SERVER.port, socket_timeout=60, **kwargs)


class Strings(unittest.TestCase):
    def setUp(self):
        self.r = client()
        self.r.flushdb()

    def tearDown(self):
        self.r.close()

    def test_values_of_any_bytes_come_back(self):
        for value in (b"", b"\x00", b"\r\n", bytes(range(256)), b"x" * 100_000, random.randbytes(1_000_000)):
            self.r.set(b"\xff\x00key", value)
            self.assertEqual(self.r.get(b"\xff\x00key"), value)

    def test_set_options(self):
        self.assertTrue(self.r.set("a", 1, nx=True))
        self.assertIsNone(self.r.set("a", 2, nx=True))
        self.assertEqual(self.r.set("a", 3, get=True), b"1")
        self.assertTrue(self.r.set("a", 4, xx=True, ex=100))
        self.assertTrue(self.r.set("a", 5, keepttl=True))
        self.assertTrue(90 < self.r.ttl("a") <= 100)

    def test_numbers_and_ranges(self):
        self.assertEqual(self.r.incr("n"), 1)
        self.assertEqual(self.r.decrby("n", 5), -4)
        self.assertEqual(self.r.incrbyfloat("f", 0.5), 0.5)
        self.assertEqual(self.r.append("s", "hello"), 5)
        self.assertEqual(self.r.getrange("s", 1, 3), b"ell")
        self.assertEqual(self.r.setrange("s", 5, "!"), 6)
        self.assertRaises(redis.ResponseError, self.r.incr, "s")

    def test_many_keys_at_once(self):
        data = {f"k{i}": str(i) for i in range(5000)}
        self.r.mset(data)
        self.assertEqual(self.r.mget(list(data)), [v.encode() for v in data.values()])
        self.assertEqual(self.r.dbsize(), 5000)
        self.assertEqual(self.r.delete(*data), 5000)

    def test_scan_iter_finds_all(self):
        with self.r.pipeline(transaction=False) as pipe:
            for i in range(3000):
                pipe.set(f"scan:{i:05}", i)
            pipe.execute()
        self.assertEqual(len(set(self.r.scan_iter("scan:*", count=50))), 3000)
        self.assertEqual(len(self.r.keys("scan:0001?")), 10)
        self.assertEqual(set(self.r.scan_iter(match="nope*")), set())
        self.assertEqual(self.r.execute_command("KELDA.RANGE", "scan:00010", "scan:00012"),
                         [b"scan:00010", b"10", b"scan:00011", b"11", b"scan:00012", b"12"])

    def test_two_megabytes_are_refused_and_the_connection_lives(self):
        connection = self.r.connection_pool.get_connection("SET")
        connection.send_command("SET", "big", b"v" * (2 << 20))
        self.assertRaises(redis.ResponseError, connection.read_response)
        connection.send_command("PING")
        self.assertEqual(connection.read_response(), b"PONG")
        self.r.connection_pool.release(connection)
        with self.assertRaisesRegex(redis.ResponseError, "key is too long"):
            self.r.set("k" * 2048, 1)

    def test_expiry(self):
        self.r.set("short", 1, px=150)
        self.r.set("long", 1, ex=1000)
        self.assertEqual(self.r.get("short"), b"1")
        time.sleep(0.2)
        self.assertIsNone(self.r.get("short"))
        deadline = time.time() + 10
        while self.r.dbsize() > 1 and time.time() < deadline:  # reclaimed in the background
            time.sleep(0.05)
        self.assertEqual(self.r.dbsize(), 1)
        self.assertTrue(self.r.persist("long"))
        self.assertEqual(self.r.ttl("long"), -1)

    def test_databases_are_separate(self):
        with client(db=10) as ten, client(db=11) as eleven:
            ten.flushdb()
            eleven.set("x", 11)
            self.assertIsNone(ten.get("x"))
            self.assertTrue(eleven.copy("x", "x", destination_db=10))
            eleven.flushdb()
            self.assertEqual(ten.get("x"), b"11")
            ten.flushdb()


class Transactions(unittest.TestCase):
    def setUp(self):
        self.r = client()
        self.r.flushdb()

    def tearDown(self):
        self.r.close()

    def test_exec_is_all_or_nothing(self):
        with self.r.pipeline() as pipe:
            pipe.set("a", 1).incr("a").get("a")
            self.assertEqual(pipe.execute(), [True, 2, b"2"])
            pipe.set("b", 1).execute_command("NOPE")
            self.assertRaises(redis.ResponseError, pipe.execute)
        self.assertIsNone(self.r.get("b"))

    def test_watch_refuses(self):
        with client() as other, self.r.pipeline() as pipe:
            pipe.watch("a")
            other.set("a", "theirs")
            pipe.multi()
            pipe.set("a", "mine")
            self.assertRaises(redis.WatchError, pipe.execute)
        self.assertEqual(self.r.get("a"), b"theirs")

    def test_counting_with_watch_loses_nothing(self):
        threads, rounds, retries = 8, 25, []

        def count():
            tries = 0
            with client() as mine:
                for _ in range(rounds):
                    while True:
                        tries += 1
                        with mine.pipeline() as pipe:
                            try:
                                pipe.watch("counter")
                                value = int(pipe.get("counter") or 0)
                                pipe.multi()
                                pipe.set("counter", value + 1)
                                pipe.execute()
                                break
                            except redis.WatchError:
                                pass
            retries.append(tries)

        workers = [threading.Thread(target=count) for _ in range(threads)]
        for worker in workers: worker.start()
        for worker in workers: worker.join()
        self.assertEqual(len(retries), threads)
        self.assertEqual(int(self.r.get("counter")), threads * rounds)

    def test_transfers_keep_the_sum(self):
        accounts, threads, rounds = 10, 6, 50
        self.r.mset({f"account:{i}": 100 for i in range(accounts)})
        wrong = []

        def move():
            with client() as mine:
                for _ in range(rounds):
                    a, b = random.sample(range(accounts), 2)
                    with mine.pipeline() as pipe:
                        pipe.decrby(f"account:{a}", 5).incrby(f"account:{b}", 5)
                        pipe.execute()
                    total = sum(map(int, mine.mget([f"account:{i}" for i in range(accounts)])))
                    if total != accounts * 100:
                        wrong.append(total)

        workers = [threading.Thread(target=move) for _ in range(threads)]
        for worker in workers: worker.start()
        for worker in workers: worker.join()
        self.assertEqual(wrong, [])


class Connections(unittest.TestCase):
    def test_client_info_has_all_fields_of_redis(self):
        fields = """id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem multi-mem rbs rbp obl oll
            omem tot-mem events cmd user redir resp lib-name lib-ver""".split()
        with client(client_name="shown") as r:
            r.set("warm", "v" * 1000)
            r.get("warm")
            info = r.client_info()
            self.assertEqual([f for f in fields if f not in info], [])
            self.assertEqual((info["name"], info["db"], info["user"], info["flags"]), ("shown", 9, "default", "N"))
            self.assertEqual(int(info["id"]), r.client_id())
            self.assertGreater(int(info["tot-mem"]), 0)
            self.assertGreater(int(info["rbp"]), 1000)  # the reply to GET
            self.assertGreater(int(info["qbuf"]), 10)   # CLIENT INFO itself
            mine = [c for c in r.client_list() if c["id"] == str(info["id"])]
            self.assertEqual([f for f in fields if f not in mine[0]], [])
            pipe = r.pipeline()
            pipe.set("a", "x" * 5000)
            pipe.execute_command("CLIENT", "INFO")
            line = pipe.execute()[1]
            line = line if isinstance(line, dict) else dict(w.split("=", 1) for w in line.decode().split())
            self.assertEqual(str(line["multi"]), "2")
            self.assertGreater(int(line["multi-mem"]), 5000)

    def test_info_has_what_exporters_read(self):
        wanted = """uptime_in_seconds process_id connected_clients blocked_clients maxclients tracking_clients
            clients_in_timeout_table client_recent_max_input_buffer client_recent_max_output_buffer used_memory used_memory_rss
            used_memory_lua maxmemory mem_fragmentation_ratio mem_fragmentation_bytes mem_clients_slaves mem_clients_normal
            mem_not_counted_for_evict active_defrag_running migrate_cached_sockets expired_time_cap_reached_count loading
            rdb_bgsave_in_progress rdb_last_save_time rdb_last_bgsave_status rdb_last_bgsave_time_sec
            rdb_current_bgsave_time_sec rdb_last_cow_size aof_enabled aof_rewrite_in_progress aof_rewrite_scheduled
            aof_last_rewrite_time_sec aof_current_rewrite_time_sec aof_last_cow_size aof_current_size aof_base_size
            aof_pending_rewrite aof_pending_bio_fsync aof_delayed_fsync aof_last_bgrewrite_status aof_last_write_status
            module_fork_in_progress module_fork_last_cow_size pubsub_channels pubsub_patterns latest_fork_usec connected_slaves
            repl_backlog_size repl_backlog_active repl_backlog_first_byte_offset repl_backlog_histlen master_repl_offset
            second_repl_offset slave_expires_tracked_keys sync_full sync_partial_ok sync_partial_err total_connections_received
            total_commands_processed instantaneous_ops_per_sec rejected_connections total_net_input_bytes
            total_net_output_bytes expired_keys evicted_keys keyspace_hits keyspace_misses used_cpu_sys used_cpu_user
            used_cpu_sys_children used_cpu_user_children role cluster_enabled""".split()
        with client() as r:
            r.config_resetstat()
            r.set("k", "v")
            r.get("k")
            with self.assertRaises(redis.ResponseError):
                r.incr("k")
            with self.assertRaises(redis.ResponseError):
                r.execute_command("SET", "k")
            pipe = r.pipeline()
            pipe.get("k")
            pipe.get("nothing")
            pipe.execute()
            info = r.info("all")
            self.assertEqual([f for f in wanted if f not in info], [])
            self.assertGreaterEqual(info["process_id"], 1)
            self.assertGreater(info["used_memory_rss"], info["used_memory"] // 2)
            self.assertEqual(info["cmdstat_get"]["calls"], 3)
            self.assertEqual((info["cmdstat_set"]["calls"], info["cmdstat_set"]["rejected_calls"]), (1, 1))
            self.assertEqual((info["cmdstat_incrby"]["calls"], info["cmdstat_incrby"]["failed_calls"]), (1, 1))
            count = info["errorstat_ERR"]  # which not every version of the library takes apart
            self.assertGreaterEqual(int(count.removeprefix("count=")) if isinstance(count, str) else count["count"], 2)
            self.assertNotIn("cmdstat_get", r.info())
            end = time.monotonic() + 2
            while time.monotonic() < end:
                r.get("k")
            self.assertGreater(r.info("stats")["instantaneous_ops_per_sec"], 0)

    def test_connect_sequence(self):
        with client(client_name="tester", health_check_interval=1) as r:
            self.assertEqual(r.client_getname(), "tester")
            self.assertTrue(any(c["name"] == "tester" for c in r.client_list()))
            info = r.info()
            self.assertEqual(info["redis_mode"], "standalone")
            self.assertIn("durability", info)
            self.assertEqual(r.config_get("databases"), {"databases": "16"})
            self.assertGreater(len(r.command()), 60)
            self.assertAlmostEqual(r.time()[0], time.time(), delta=3600)

    def test_resp3(self):
        with client() as r:
            connection = r.connection_pool.get_connection("HELLO")
            connection.send_command("HELLO", "2")
            reply = connection.read_response()
            self.assertEqual(dict(zip(reply[::2], reply[1::2]))[b"proto"], 2)
            r.connection_pool.release(connection)

    def test_hundreds_of_connections(self):
        with client() as r:
            r.flushdb()
        clients = [client() for _ in range(400)]
        try:
            for i, c in enumerate(clients):
                c.set(f"c{i}", i)
            self.assertEqual([c.get(f"c{i}") for i, c in enumerate(clients)], [str(i).encode() for i in range(400)])
            self.assertGreaterEqual(clients[0].info("clients")["connected_clients"], 400)
        finally:
            for c in clients:
                c.close()

    def test_long_pipeline_without_reading(self):
        with client() as r, r.pipeline(transaction=False) as pipe:
            payload = b"p" * 200
            for i in range(50_000):
                pipe.echo(payload)
            self.assertEqual(set(pipe.execute()), {payload})


if __name__ == "__main__":
    with server_from_argument() as SERVER:
        result = unittest.main(exit=False).result
    sys.exit(0 if result.wasSuccessful() else 1)
