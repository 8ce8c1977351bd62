"""Loop devices for tests that run as root where Linux has them; each is detached when its `with` ends."""
import contextlib
import os
import subprocess
import unittest

PATH = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/sbin:/usr/sbin"}


def run(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, env=PATH)


@contextlib.contextmanager
def attached(file, *options):
    """Path of a loop device that shows the file."""
    try:
        done = run("losetup", *options, "--find", "--show", file)
    except FileNotFoundError:
        raise unittest.SkipTest("needs losetup") from None
    if done.returncode != 0:
        raise unittest.SkipTest("no loop device can be had here: " + done.stderr.strip())
    device = done.stdout.strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(device, folder):
    folder.mkdir()
    done = run("mount", device, folder)
    if done.returncode != 0:
        raise unittest.SkipTest("nothing can be mounted here: " + done.stderr.strip())
    try:
        yield folder
    finally:
        run("umount", folder)
