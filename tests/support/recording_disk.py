"""A disk behind QEMU that remembers: an NBD server, with a cache that a power cut may lose.

QEMU's NBD client forwards the guest's writes, flushes and FUA bits one by one. Each becomes an event when it arrives and
another when its completion is sent; what tests learn in between (an acknowledgement) is noted in the same list, so that
one order holds for all. QEMU's own recorder, blklogwrites, notes requests when they are sent only: it cannot tell which
writes a flush found complete, nor what had been acknowledged by then.

Completions are held back for random times: whoever does not wait for a write before flushing it, or for the flush before
answering, is seen doing so.

Protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md (fixed newstyle, simple replies).
"""
import asyncio
import random
import struct
import threading
from typing import NamedTuple

MAGIC, OPTION_MAGIC, REPLY_MAGIC = b"NBDMAGIC", b"IHAVEOPT", 0x3E889045565A9
REQUEST_MAGIC, SIMPLE_REPLY_MAGIC = 0x25609513, 0x67446698
OPT_EXPORT_NAME, OPT_ABORT, OPT_GO = 1, 2, 7
REP_ACK, REP_INFO, REP_ERR_UNSUPPORTED = 1, 3, 0x80000001
# Has flags, flush, FUA.
EXPORT_FLAGS = 1 | 1 << 2 | 1 << 3
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
COMMAND_FUA = 1


class Write(NamedTuple):
    """Arrived."""
    number: int
    offset: int
    data: bytes
    fua: bool


class Flush(NamedTuple):
    """Arrived."""
    number: int


class Done(NamedTuple):
    """The completion of a write or flush is sent to the guest next."""
    number: int


class RecordingDisk:
    """Serves on a unix socket, from a thread of its own, until stop(). One boot at a time may be connected."""

    def __init__(self, socket_path, size_bytes, seed):
        self.socket_path, self.size_bytes = str(socket_path), size_bytes
        self.events = []  # of the classes above, and whatever else users append: append is atomic
        self.failures = []
        self._content = bytearray(size_bytes)
        self._random = random.Random(seed)
        self._count = 0
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._started.wait()

    def stop(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        if self.failures:
            raise AssertionError(f"the recording disk failed: {self.failures}")

    def content(self):
        """What a reader would get now."""
        return bytes(self._content)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self):
        self._stop = asyncio.Event()
        server = await asyncio.start_unix_server(self._connection, self.socket_path, limit=8 << 20)
        self._started.set()
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader, writer):
        try:
            if await self._handshake(reader, writer):
                await self._requests(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # QEMU was killed, or stop() was called
        except Exception as error:  # shown by stop(): a test must not pass over it
            self.failures.append(repr(error))
        finally:
            writer.close()

    async def _handshake(self, reader, writer):
        writer.write(MAGIC + OPTION_MAGIC + struct.pack(">H", 1))
        await reader.readexactly(4)  # the client's flags
        while True:
            magic, option, length = struct.unpack(">8sII", await reader.readexactly(16))
            assert magic == OPTION_MAGIC
            await reader.readexactly(length)
            if option == OPT_EXPORT_NAME:
                writer.write(struct.pack(">QH124x", self.size_bytes, EXPORT_FLAGS))
                return True
            answers = [(REP_ERR_UNSUPPORTED, b"")]
            if option == OPT_GO:
                answers = [(REP_INFO, struct.pack(">HQH", 0, self.size_bytes, EXPORT_FLAGS)), (REP_ACK, b"")]
            elif option == OPT_ABORT:
                answers = [(REP_ACK, b"")]
            for kind, payload in answers:
                writer.write(struct.pack(">QIII", REPLY_MAGIC, option, kind, len(payload)) + payload)
            if option in (OPT_GO, OPT_ABORT):
                return option == OPT_GO

    async def _requests(self, reader, writer):
        under_way = set()
        while True:
            magic, flags, kind, handle, offset, length = struct.unpack(">IHH8sQI", await reader.readexactly(28))
            assert magic == REQUEST_MAGIC
            data = await reader.readexactly(length) if kind == WRITE else b""
            if kind == DISCONNECT:
                return
            if kind == READ:
                self._reply(writer, handle, bytes(self._content[offset:offset + length]))
            elif kind == WRITE:
                number = self._arrived(lambda n: Write(n, offset, data, bool(flags & COMMAND_FUA)))
                self._content[offset:offset + length] = data
                self._complete_later(under_way, writer, handle, number, longest_ms=2)
            elif kind == FLUSH:
                number = self._arrived(Flush)
                self._complete_later(under_way, writer, handle, number, longest_ms=5)
            else:
                raise AssertionError(f"request {kind}, which was not offered")
            await writer.drain()

    def _arrived(self, event):
        self._count += 1
        self.events.append(event(self._count))
        return self._count

    def _complete_later(self, under_way, writer, handle, number, longest_ms):
        async def complete():
            if self._random.random() < 0.5:
                await asyncio.sleep(self._random.random() * longest_ms / 1000)
            if not writer.is_closing():
                self.events.append(Done(number))
                self._reply(writer, handle, b"")

        task = self._loop.create_task(complete())
        under_way.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(under_way.discard)

    @staticmethod
    def _reply(writer, handle, data):
        writer.write(struct.pack(">II8s", SIMPLE_REPLY_MAGIC, 0, handle) + data)
