"""The states in which a power cut may leave a recorded disk.

At any moment: each write that a flush found complete is there, once that flush is complete; so is each FUA write that is
complete. Of all others, any may be there or not, and of each any of its 512-byte sectors.
"""
from support.recording_disk import Done, Flush, Write

SECTOR = 512


class Disk:
    """Takes the events of a recording one by one; image(fate, random) is then a state after a cut at this point.

    lying_flushes: as many of the last flushes did nothing. Such a disk breaks its promise, and the loss must be noticed.
    """

    def __init__(self, size_bytes, lying_flushes=0):
        self.durable = bytearray(size_bytes)
        self.pending = {}  # number -> Write
        self.overlapping_in_flight = 0
        self.flushes = 0
        self._in_flight = {}  # number -> what its completion makes durable
        self._lying_flushes = lying_flushes
        self._not_believed = []

    def take(self, event):
        if isinstance(event, Write):
            in_flight = (self.pending[n] for n in self._in_flight if n in self.pending)
            self.overlapping_in_flight += any(overlap(event, other) for other in in_flight)
            if event.fua:  # it would have to take the place of what lies in the cache; virtio-blk has no FUA
                raise AssertionError("a FUA write from virtio-blk")
            self.pending[event.number] = event
            self._in_flight[event.number] = None
        elif isinstance(event, Flush):
            self._in_flight[event.number] = [n for n in self.pending if n not in self._in_flight]
        elif isinstance(event, Done):
            covered = self._in_flight.pop(event.number)
            if covered is not None:
                self.flushes += 1
                self._not_believed.append(covered)
                if len(self._not_believed) > self._lying_flushes:
                    self._harden(self._not_believed.pop(0))

    def _harden(self, numbers):
        for number in sorted(numbers):
            if number in self.pending:
                apply(self.durable, self.pending.pop(number))

    def image(self, fate, random):
        image = bytearray(self.durable)
        writes = [self.pending[number] for number in sorted(self.pending)]
        for write, sectors in FATES[fate](writes, random):
            apply(image, write, sectors)
        return image


def overlap(a, b):
    return a.offset < b.offset + len(b.data) and b.offset < a.offset + len(a.data)


def apply(image, write, sectors=None):
    if sectors is None:
        image[write.offset:write.offset + len(write.data)] = write.data
        return
    for sector in sectors:
        piece = write.data[sector * SECTOR:(sector + 1) * SECTOR]
        image[write.offset + sector * SECTOR:write.offset + sector * SECTOR + len(piece)] = piece


def some_sectors(write, random, share):
    return [s for s in range((len(write.data) + SECTOR - 1) // SECTOR) if random.random() < share]


def last_one_torn(writes, random):
    yield from ((write, None) for write in writes[:-1])
    for write in writes[-1:]:
        yield write, range(random.randint(0, (len(write.data) - 1) // SECTOR))


def one_missing(writes, random):
    lost = random.choice(writes) if writes else None
    return ((write, None) for write in writes if write is not lost)


# What the cache had brought to the medium: pairs of a write and the sectors of it, None for all.
FATES = {
    "all lost": lambda writes, random: (),
    "none lost": lambda writes, random: ((write, None) for write in writes),
    "half lost": lambda writes, random: ((write, None) for write in writes if random.random() < 0.5),
    "one lost": one_missing,
    "last written alone": lambda writes, random: ((write, None) for write in writes[-1:]),
    "all torn": lambda writes, random: ((write, some_sectors(write, random, 0.5)) for write in writes),
    "some torn": lambda writes, random: ((write, some_sectors(write, random, random.choice((0, 0.9, 1)))) for write in writes),
    "last one torn": last_one_torn,
}
