"""A disk whose errors come on request: QEMU's blkdebug, put in and taken out while a server runs on it.

    server -- raw node "top" -- [blkdebug] -- NBD node "bottom" -- RecordingDisk

In mode vm the nodes are QEMU's, and the disk is the guest's virtio-blk device. In mode hosted they are those of a
qemu-storage-daemon that exports "top" as a file through FUSE: io_uring meets real errors of a real file. What reaches the
RecordingDisk is written down, so a test sees whether anything was tried again.
"""
import os
import pathlib
import subprocess
import time

from support.kelda_process import Kelda
from support.qmp import Monitor
from support.recording_disk import Flush, RecordingDisk, Write

TOP = {"driver": "raw", "node-name": "top"}


class FuseDaemon:
    """qemu-storage-daemon with the nodes above, on a unix socket and a file."""

    def __init__(self, nbd, monitor, file):
        file.touch()
        self.file = file
        self.process = subprocess.Popen(
            ["qemu-storage-daemon", "--chardev", f"socket,id=qmp,path={monitor},server=on,wait=off", "--monitor", "chardev=qmp",
             "--blockdev", f"nbd,node-name=bottom,server.type=unix,server.path={nbd}",
             "--blockdev", "raw,node-name=top,file=bottom",
             "--export", f"fuse,id=file,node-name=top,mountpoint={file},writable=on"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        deadline = time.monotonic() + 20
        while not os.path.ismount(file) and not self._is_exported() and time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"qemu-storage-daemon: {self.process.stdout.read()}")
            time.sleep(0.01)

    def _is_exported(self):
        return self.file.stat().st_dev != self.file.parent.stat().st_dev

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()


def why_not(mode):
    """The reason for which this machine cannot make such disks, or None."""
    if mode == "hosted" and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse that may be used, so no file whose errors are real"
    return None


class FaultyDisk:
    def __init__(self, mode, folder, size_bytes, seed=1):
        self.mode, self.folder, self.size_bytes = mode, pathlib.Path(folder), size_bytes
        self.monitor_path = self.folder / "blocks.qmp"
        self.recording = RecordingDisk(self.folder / "nbd", size_bytes, seed)
        self.daemon = self.monitor = None
        if mode == "hosted":
            self.daemon = FuseDaemon(self.recording.socket_path, self.monitor_path, self.folder / "fuse-disk")
            self.monitor = Monitor(self.monitor_path)

    def server(self, **options):
        if self.mode == "hosted":
            return Kelda("hosted", self.daemon.file, create=str(self.size_bytes), **options)
        # QEMU lets later words overrule the -drive before them. The file itself is only looked at.
        overruled = [f"file=nbd+unix:///?socket={self.recording.socket_path}", "node-name=top", "file.node-name=bottom"]
        words = [word for each in overruled for word in ("-set", f"drive.disk0.{each}")]
        words += ["-qmp", f"unix:{self.monitor_path},server=on,wait=off"]
        return Kelda("vm", self.folder / "stand-in", create=str(self.size_bytes), extra=[f"--qemu={word}" for word in words], **options)

    def started(self):
        """After each start of a server."""
        if self.mode == "vm":
            self.monitor = Monitor(self.monitor_path)

    def stopped(self):
        if self.mode == "vm" and self.monitor is not None:
            self.monitor.close()
            self.monitor = None

    def inject(self, iotype, errno, times=None, sectors=()):
        """Requests of this type fail from now on; if sectors are given, those that touch any of them."""
        rule = {"event": "none", "iotype": iotype, "errno": errno, "once": times is not None}
        rules = [{**rule, "sector": sector} for sector in sectors] or [rule] * (times or 1)
        self.monitor.call("blockdev-add", driver="blkdebug", image="bottom", **{"node-name": "errors", "inject-error": rules})
        self.monitor.call("blockdev-reopen", options=[{**TOP, "file": "errors"}])

    def heal(self, patience=10):
        while True:
            try:
                self.monitor.call("blockdev-reopen", options=[{**TOP, "file": "bottom"}])
                break
            except AssertionError:  # it flushes first, and that meets the errors too
                patience -= 1
                if patience == 0:
                    raise
        self.monitor.call("blockdev-del", **{"node-name": "errors"})

    def changes(self):
        """How many writes and flushes have reached the disk."""
        return sum(isinstance(event, (Write, Flush)) for event in self.recording.events)

    def save(self, path):
        path.write_bytes(self.recording.content())

    def stop(self):
        self.stopped()
        if self.daemon is not None:
            self.monitor.close()
            self.daemon.stop()
        self.recording.stop()
