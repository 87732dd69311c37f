"""A link between network namespaces, made of TUN devices and carried by this process, since not every kernel has netem.

Takes its description as JSON in the first argument, says {"ready": true} when all devices are up, then obeys one JSON
command a line on its standard input, each answered by one line. Ends, and its devices with it, when the input ends.
test/support/Link.ts is its other half and says what the settings mean.
"""

import collections
import ctypes
import fcntl
import gc
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
CLONE_NEWNET = 0x40000000
PR_SET_TIMERSLACK = 29
READS_AT_ONCE = 32

libc = ctypes.CDLL(None, use_errno=True)
now = time.monotonic


def enter(namespace):
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def ip(*words):
    ended = subprocess.run(["ip", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ended.returncode != 0:
        raise RuntimeError(f"ip {' '.join(words)}: {ended.stderr.strip()}")


class Settings:
    """What the link does to packets; changed while it runs."""

    def __init__(self):
        self.delay = self.jitter = self.loss = 0.0
        self.rate = None
        self.queue_bytes = 0

    def change(self, words):
        for name, value in words.items():
            if name in ("delay_ms", "jitter_ms"):
                setattr(self, name[:-3], value / 1000)
            elif name in ("loss", "rate", "queue_bytes"):
                setattr(self, name, value)
            else:
                raise ValueError(f"there is no setting {name}")


class End:
    """One device, and the packets that came in by it and have not arrived yet."""

    def __init__(self, words, mtu, chance):
        self.name = words["name"]
        self.address = words["address"]
        self.mtu = mtu
        self.chance = chance
        self.line = collections.deque()
        self.line_bytes = 0
        self.free_at = self.last_due = 0.0
        self.forget()
        self.open(words["namespace"])

    def forget(self):
        self.packets = self.bytes = self.lost = self.overflowed = self.refused = 0
        self.late_sum = self.late_most = 0.0

    def open(self, namespace):
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(namespace or "/proc/self/ns/net", os.O_RDONLY)
        try:
            enter(there)
            self.device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            wish = struct.pack("16sH22x", self.name.encode(), IFF_TUN | IFF_NO_PI)
            fcntl.ioctl(self.device, TUNSETIFF, wish)
            ip("link", "set", self.name, "mtu", str(self.mtu), "txqueuelen", "10000", "addrgenmode", "none")
            ip("address", "add", self.address, "dev", self.name)
            ip("link", "set", self.name, "up")
        finally:
            enter(home)
            os.close(there)
            os.close(home)

    def take(self, packet, targets, settings):
        """A packet came in by this end: it is lost, or gets the time of its arrival. None overtakes another."""
        target = targets(packet)
        if target is None:
            self.refused += 1
            return
        if settings.loss > 0 and self.chance.random() < settings.loss:
            self.lost += 1
            return
        at = now()
        size = len(packet)
        if settings.rate is None:
            waiting = self.line_bytes
        else:
            waiting = max(0.0, self.free_at - at) * settings.rate
        if waiting + size > settings.queue_bytes:
            self.overflowed += 1
            return
        if settings.rate is not None:
            self.free_at = at = max(at, self.free_at) + size / settings.rate
        due = at + settings.delay
        if settings.jitter > 0:
            due += self.chance.random() * settings.jitter
        self.last_due = due = max(due, self.last_due)
        self.line.append((due, target, packet))
        self.line_bytes += size

    def deliver(self):
        """Hands over what is due."""
        line = self.line
        at = now()
        while line and line[0][0] <= at:
            due, target, packet = line.popleft()
            size = len(packet)
            self.line_bytes -= size
            try:
                os.write(target, packet)
            except OSError:  # The device at the other end is down.
                self.refused += 1
                continue
            self.packets += 1
            self.bytes += size
            late = at - due
            self.late_sum += late
            if late > self.late_most:
                self.late_most = late

    def figures(self):
        told = {
            "name": self.name,
            "packets": self.packets,
            "bytes": self.bytes,
            "lost": self.lost,
            "overflowed": self.overflowed,
            "refused": self.refused,
            "late_mean_us": self.late_sum / self.packets * 1e6 if self.packets else 0.0,
            "late_most_us": self.late_most * 1e6,
        }
        self.forget()
        return told


def chooser(ends, end):
    """Where packets of an end go: across, or with several other ends to the one whose address they bear."""
    others = [other for other in ends if other is not end]
    if len(others) == 1:
        (other,) = others
        return lambda packet: other.device if packet[0] >> 4 == 4 else None
    devices = {bytes(map(int, other.address.split("/")[0].split("."))): other.device for other in others}
    return lambda packet: devices.get(packet[16:20]) if packet[0] >> 4 == 4 else None


def obey(words, ends, settings):
    if "set" in words:
        settings.change(words["set"])
        return {"done": True}
    if "figures" in words:
        return {"figures": [end.figures() for end in ends]}
    raise ValueError("there is no such command")


def say(words):
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def carry(ends, settings):
    """Carries packets until the input ends."""
    ways = {end.device: (end, chooser(ends, end)) for end in ends}
    watched = [0, *ways]
    largest = max(end.mtu for end in ends)
    typed = b""
    while True:
        for end in ends:
            end.deliver()
        dues = [end.line[0][0] for end in ends if end.line]
        patience = max(0.0, min(dues) - now()) if dues else None
        ready, _, _ = select.select(watched, [], [], patience)
        for device in ready:
            if device == 0:
                more = os.read(0, 65536)
                if not more:
                    return
                *lines, typed = (typed + more).split(b"\n")
                for line in lines:
                    try:
                        say(obey(json.loads(line), ends, settings))
                    except (ValueError, TypeError) as error:
                        say({"error": str(error)})
                continue
            end, targets = ways[device]
            try:
                for _ in range(READS_AT_ONCE):
                    end.take(os.read(device, largest), targets, settings)
            except BlockingIOError:
                pass
            except OSError:  # Its namespace has ended, and the device with it.
                watched.remove(device)


def main():
    words = json.loads(sys.argv[1])
    try:
        # Ahead of what it measures: a link must not get slower because the machine is busy.
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    except PermissionError:
        pass
    libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    gc.disable()
    settings = Settings()
    settings.change(words["settings"])
    ends = [
        End(end, words["mtu"], random.Random(f"{words['seed']} {index}")) for index, end in enumerate(words["ends"])
    ]
    say({"ready": True})
    carry(ends, settings)


main()
