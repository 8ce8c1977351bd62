"""The few words of GDB's remote protocol that a test needs to change a running guest, through QEMU's gdb stub.

https://sourceware.org/gdb/current/onlinedocs/gdb.html/Remote-Protocol.html
"""
import socket
import time


class GdbStub:
    """Connecting stops the machine; detach() lets it go on."""

    def __init__(self, port, seconds=20):
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.file = self.socket.makefile("rb")

    def call(self, text):
        packet = text.encode()
        self.socket.sendall(b"$%s#%02x" % (packet, sum(packet) % 256))
        while (answer := self._read()).startswith("T"):  # that the machine has stopped comes by itself
            pass
        return answer

    def _read(self):
        while self.file.read(1) != b"$":  # acknowledgements
            pass
        packet = b""
        while not packet.endswith(b"#"):
            packet += self.file.read(1)
        self.file.read(2)  # the checksum: TCP has seen to that
        self.socket.sendall(b"+")
        return packet[:-1].decode()

    def write_memory(self, address, data):
        """Whatever protection the pages have."""
        answer = self.call(f"M{address:x},{len(data):x}:{data.hex()}")
        if answer != "OK":
            raise AssertionError(f"writing {len(data)} bytes at {address:#x}: {answer}")

    def detach(self):
        self.call("D")
        self.file.close()
        self.socket.close()
