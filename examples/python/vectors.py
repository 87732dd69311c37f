#!/usr/bin/python3
"""Runs the test vectors: makes what they make, and judges what they judge.  vectors.py [FOLDER]"""

import json
import sys
from pathlib import Path

import wire

READERS = {
    "connect": (wire.CONNECT, wire.DOCUMENT_BYTES),
    "handshake": (wire.HANDSHAKE, wire.DOCUMENT_BYTES),
    "answer": (wire.ANSWER, wire.DOCUMENT_BYTES),
    "status": (wire.STATUS, wire.DOCUMENT_BYTES),
    "ping": (wire.PING, wire.DOCUMENT_BYTES),
    "directory": (wire.DIRECTORY, wire.DIRECTORY_BYTES),
}


def bytes_of(text):
    return (text if isinstance(text, str) else "".join(part * times for part, times in text)).encode()


def verdict(parties, case):
    data = bytes_of(case["wire"])
    try:
        if case["by"] == "reader":
            wire.read_signed(READERS[case["kind"]][0], data, READERS[case["kind"]][1])
            return "taken"
        services, peers = {parties[wire.SERVICES].signing_key}, {"alice": parties["alice"].signing_key}
        agent = case["agent"]
        message = wire.Receiver(agent, parties[agent], services, peers).receive(case["inbox"], data, case["now_ms"])
        expected = case.get("message")
        return "taken" if all(message[name] == value for name, value in (expected or {}).items()) else "another message"
    except wire.Refused as refused:
        return refused.code


def check(path):
    file = json.loads(path.read_text())
    parties = {
        each["name"]: wire.Keys(bytes.fromhex(each["signing_seed"]), bytes.fromhex(each["agreement_secret"]))
        for each in file["keys"]
    }
    for each in file["keys"]:
        yield each["name"], (parties[each["name"]].signing_key, parties[each["name"]].agreement_key), (
            each["signing_key"],
            each["agreement_key"],
        )
        if each["name"] != wire.SERVICES:
            yield each["name"], parties[each["name"]].device, each["id"]
    for each in file.get("made", []):
        yield each["name"], wire.canonical(parties[each["signer"]].sign(each["document"])), each["wire"].encode()
    for each in file.get("sealed", []):
        key = parties[each["recipient"]].agreement_key
        ephemeral = bytes.fromhex(each["ephemeral_secret"])
        sealed = wire.seal(parties[each["signer"]], each["header"], each["plaintext"].encode(), key, ephemeral)
        yield each["name"], wire.canonical(sealed), each["wire"].encode()
    for each in file.get("judged", []):
        # What broker services judge is theirs alone: an agent only makes it.
        if each["by"] != "broker_services":
            yield each["name"], verdict(parties, each), each["verdict"]


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "../../test/vectors"
    count = failed = 0
    for path in sorted(folder.glob("*.json")):
        for name, got, expected in check(path):
            count += 1
            if got != expected:
                failed += 1
                print(f"{path.name}: {name}: {got!r} instead of {expected!r}")
    print(f"{count - failed} of {count} vectors hold")
    sys.exit(1 if failed or count == 0 else 0)


if __name__ == "__main__":
    main()
