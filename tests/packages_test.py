#!/usr/bin/python3
"""Real input: Debian's package index, one key a package with its stanza as the value, through `redis-cli --pipe`.

usage: packages_test.py hosted|vm [LIMIT]

Loads it, reads every key back and compares, walks it in order with KELDA.RANGE, restarts, compares again, checks the disk.
"""
import pathlib
import subprocess
import sys
import tempfile
import time

import redis

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from support.kelda_process import Kelda, check  # noqa: E402


def index_text():
    """What apt knows of; on a machine whose lists were never fetched, or were removed, what is installed."""
    try:
        text = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        text = b""
    return text or pathlib.Path("/var/lib/dpkg/status").read_bytes()


def package_index(limit):
    text = index_text()
    packages = {}
    for stanza in text.split(b"\n\n"):
        if stanza.startswith(b"Package: "):
            packages[stanza[9:].split(b"\n", 1)[0].strip()] = stanza
            if limit and len(packages) == limit:
                break
    return packages


def resp_commands(packages):
    out = bytearray()
    for name, stanza in packages.items():
        out += b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(name), name, len(stanza), stanza)
    return bytes(out)


def compare(port, packages):
    client = redis.Redis(host="127.0.0.1", port=port, socket_timeout=120)
    names = list(packages)
    for at in range(0, len(names), 500):
        part = names[at:at + 500]
        for name, value in zip(part, client.mget(part)):
            assert value == packages[name], f"{name!r} differs"
    assert client.dbsize() == len(packages), (client.dbsize(), len(packages))


def compare_order(port, packages):
    client = redis.Redis(host="127.0.0.1", port=port, socket_timeout=120)
    expected = sorted(packages)
    seen, start = [], b"-"
    while True:
        reply = client.execute_command("KELDA.RANGE", start, "+", "LIMIT", 1000)
        keys = reply[0::2]
        seen += keys
        if len(keys) < 1000:
            break
        start = b"(" + keys[-1]
    assert seen == expected, "KELDA.RANGE does not give the keys in order"


def main():
    mode = sys.argv[1]
    packages = package_index(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    if not packages:
        print("no package index here: run apt-get update")
        return 1
    total = sum(len(v) for v in packages.values())
    print(f"{len(packages)} packages, {total >> 20} MiB", flush=True)
    with tempfile.TemporaryDirectory(prefix="kelda-packages-") as folder:
        disk = pathlib.Path(folder) / "disk"
        with Kelda(mode, disk, memory="256M", create="1G") as server:
            start = time.monotonic()
            loaded = subprocess.run(["redis-cli", "-p", str(server.port), "--pipe"], input=resp_commands(packages),
                                    capture_output=True, timeout=600)
            text = loaded.stdout.decode()
            assert loaded.returncode == 0 and f"errors: 0, replies: {len(packages)}" in text, text + loaded.stderr.decode()
            print(f"{mode}: loaded in {time.monotonic() - start:.1f} s", flush=True)
            start = time.monotonic()
            compare(server.port, packages)
            compare_order(server.port, packages)
            print(f"{mode}: read back and compared in {time.monotonic() - start:.1f} s", flush=True)
            code = server.stop()
            assert code == 0, f"exit code {code}\n" + server.output()
        code, text = check(disk)
        assert code == 0, text
        with Kelda(mode, disk, memory="256M", create="1G") as server:
            compare(server.port, packages)
            assert server.stop() == 0, server.output()
    print("1 passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
