#!/usr/bin/python3
"""Scrubbing a server that runs: a byte that changes on its disk is found, told once, and counted in INFO.

usage: scrub_test.py hosted|vm [unittest arguments]
"""
import pathlib
import sys
import time

import redis

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support import acceptance  # noqa: E402
from support.kelda_process import check  # noqa: E402

PAGE = 4096


class Scrub(acceptance.Case):
    def scrub(self, client):
        """One run, to its end: INFO's section."""
        runs = client.info("scrub")["scrub_runs"]
        self.assertTrue(client.execute_command("KELDA.SCRUB", "START"))
        deadline = time.monotonic() + 100
        while True:
            info = client.info("scrub")
            if info["scrub_runs"] > runs and info["scrub_running"] == 0:
                return info
            self.assertLess(time.monotonic(), deadline, info)
            time.sleep(0.1)

    def test_a_byte_that_changes_is_found_and_repaired(self):
        disk = self.folder / "disk"
        server = self.server(disk, create="64M", memory="64M", extra=["--scrub-rate", "1G", "--scrub-interval", "off"])
        client = server.client()
        client.mset({f"key{i:05}": f"value {i} " * 20 for i in range(5000)})
        client.execute_command("KELDA.CHECKPOINT")
        sound = self.scrub(client)
        self.assertEqual((sound["scrub_errors"], sound["scrub_progress_percent"], sound["scrub_last_complete"]), (0, 100, 1), sound)
        self.assertGreater(sound["scrub_pages_checked"], 200)
        where = acceptance.superblock(disk)
        with open(disk, "r+b", buffering=0) as file:
            file.seek(where["pages_offset"])
            area = file.read(1000 * PAGE)
            leaf = next(page for page in range(8, 1000) if area[page * PAGE + 24] == 2 and area[page * PAGE:(page + 1) * PAGE].count(b"value 3") > 50)
            place = where["pages_offset"] + leaf * PAGE
            file.seek(place)
            block = bytearray(file.read(PAGE))
            block[1000] ^= 4
            file.seek(place)
            file.write(block)
        found = self.scrub(client)
        self.assertEqual((found["scrub_errors"], found["scrub_repaired"], found["scrub_last_error_page"]), (1, 1, leaf), found)
        lines = [line for line in server.output().splitlines() if " SCRUB: " in line]
        self.assertEqual(len(lines), 1, server.output())
        self.assertIn(f"page {leaf}: ", lines[0])
        self.assertEqual(self.scrub(client)["scrub_errors"], 0)
        status = client.execute_command("KELDA.SCRUB", "STATUS")
        self.assertIn(b"total_repaired", status)
        with self.assertRaises(redis.ResponseError):
            client.execute_command("KELDA.SCRUB", "PAUSE")
        self.assertTrue(client.execute_command("KELDA.SCRUB", "STOP"))
        client.close()
        self.assertEqual(server.stop(), 0, server.output())
        self.assertEqual(check(disk)[0], 0)

    def test_options(self):
        for wrong in ("7x", "weekly", ""):
            arguments = self.start_arguments("--disk", str(self.folder / "none"), "--scrub-interval", wrong)
            self.assertEqual(self.kelda(*arguments)[0], 2, wrong)
        self.assertEqual(self.kelda(*self.start_arguments("--disk", str(self.folder / "none"), "--scrub-rate", "fast"))[0], 2)


if __name__ == "__main__":
    acceptance.run([Scrub])
