#!/usr/bin/python3
"""A Postern agent in Python.

agent.py enrol --state DIR INVITATION   makes keys and asks to be let in, until an operator has decided
agent.py run --state DIR [--url URL]    connects; prints what comes as lines of JSON, and sends lines like
                                        {"level": "private", "to": ["bob"], "subject": "", "body": 21.5} or {"ping": "bob"}
"""

import argparse
import collections
import json
import os
import secrets
import sqlite3
import ssl
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import paho.mqtt.client as mqtt

import enrol
import wire

now_ms = lambda: int(time.time() * 1000)

SHAKE_AGAIN_S, SHAKE_AGAIN_AT_MOST_S = 30, 300
# So many public messages are remembered, to know those that the broker brings twice.
LATELY = 1000


class State:
    """What an agent must keep: its keys, whom it believes, and the ids of what it took, until they expire."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = self.folder / "agent.json"
        if self.path.exists():
            self.kept = json.loads(self.path.read_text())
        else:
            self.kept = {"seed": secrets.token_hex(32), "secret": secrets.token_hex(32), "incarnation": wire.new_id()}
            self.save()
        self.keys = wire.Keys(bytes.fromhex(self.kept["seed"]), bytes.fromhex(self.kept["secret"]))
        self.seen = sqlite3.connect(self.folder / "seen.db", isolation_level=None, check_same_thread=False)
        self.seen.execute("CREATE TABLE IF NOT EXISTS seen (sender, id, expires_at_ms, PRIMARY KEY (sender, id))")

    def save(self):
        fresh = self.folder / "agent.json.new"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(json.dumps(self.kept, indent=2))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)

    def came_before(self, message):
        self.seen.execute("DELETE FROM seen WHERE expires_at_ms <= ?", (now_ms(),))
        row = (message["from"], message["id"])
        return self.seen.execute("SELECT 1 FROM seen WHERE sender = ? AND id = ?", row).fetchone() is not None

    def remember(self, message):
        """Until it expires: then it is refused for that."""
        row = (message["from"], message["id"], message["expires_at_ms"])
        self.seen.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", row)

    def server(self):
        server = enrol.Server(self.kept["origin"], self.kept["server"], self.keys)
        server.root = self.kept.get("root")
        return server


class Agent:
    """An agent at the broker. `tell` gets what happens, as something JSON can hold."""

    def __init__(self, state, tell):
        self.state, self.keys, self.tell, self.name = state, state.keys, tell, state.kept["name"]
        self.client, self.lock, self.outgoing = None, threading.RLock(), []
        self.agreement, self.peers, self.version, self.asked = None, {}, -1, {}
        self.services = set()
        self.lately = collections.deque(maxlen=LATELY)

    def topic(self, agent, inbox):
        return f"{self.topics}/{agent}/{inbox}"

    def _say(self, agent, inbox, document, retain=False):
        data = wire.canonical(document) if document is not None else b""
        return self.client.publish(self.topic(agent, inbox), data, qos=1, retain=retain)

    def _status(self, status):
        members = {"agent": self.name, "session": self.session, "status": status, "issued_at_ms": now_ms()}
        return self.keys.sign({"type": "postern/status/v1", **members})

    # --- Coming and going

    def believe(self, services):
        """Broker services by these keys. A list of agents by a key that is gone from them counts no more."""
        if not self.services <= services:
            self.peers.clear()
        self.services = services

    def _make_client(self, place, ca):
        is_web = place.scheme in ("ws", "wss")
        # A connection is one session with one proof, so paho must not begin another by itself.
        client = mqtt.Client(
            self.name,
            clean_session=False,
            protocol=mqtt.MQTTv311,
            transport="websockets" if is_web else "tcp",
            reconnect_on_failure=False,
        )
        if is_web:
            client.ws_set_options(path=place.path)
        if place.scheme in ("wss", "mqtts"):
            client.tls_set_context(ssl.create_default_context(cadata=ca))
        client.on_connect, client.on_message = self._connected, self._came
        return client

    def session_at(self, url, server, offer, ca):
        """One session, from its beginning to its end."""
        place = urllib.parse.urlsplit(url)
        self.topics, self.session, self.nonce = offer["topic_root"], wire.new_id(), None
        self.answered = None
        self.believe({wire.b64(key) for key in enrol.role(server.root, "broker_services")[0].values()})
        self.agreement, self.version = None, -1
        # The same client for all sessions: it keeps what was not acknowledged, and sends it again.
        self.client = self.client or self._make_client(place, ca)
        proof = self.keys.sign(
            {
                "type": "postern/mqtt-connect/v1",
                "agent": self.name,
                "device": self.keys.device,
                "server": server.id,
                "session": self.session,
                "issued_at_ms": now_ms(),
            }
        )
        # paho takes a password as text; a proof is canonical JSON, which is UTF-8.
        self.client.username_pw_set(self.name, offer["password"] or wire.canonical(proof).decode())
        self.client.will_set(self.topic(wire.SERVICES, "status"), wire.canonical(self._status("DU")), qos=1)
        default_port = {"ws": 80, "wss": 443, "mqtt": 1883, "mqtts": 8883}[place.scheme]
        self.client.connect(place.hostname, place.port or default_port, keepalive=30)
        self.client.loop_forever()

    def _connected(self, client, _userdata, _flags, code):
        if code != 0:
            self.tell({"event": "refused", "detail": mqtt.connack_string(code)})
            client.disconnect()
            return
        inboxes = [self.topic(self.name, "handshake"), f"{self.topics}/{self.name}/#"]
        client.subscribe([(topic, 1) for topic in [*inboxes, self.topic(wire.SERVICES, "discovery")]])
        self._shake_hands(self.session, SHAKE_AGAIN_S)

    def _shake_hands(self, session, pause_s):
        """Again, ever more slowly, until the last handshake is answered `known`: answers are lost, and clocks put right."""
        with self.lock:
            # What is published without a connection would go out with the next one.
            if session != self.session or self.answered == "known" or not self.client.is_connected():
                return
            self.nonce, self.answered = wire.new_id(), None
            self._tell_keys()
        timer = threading.Timer(pause_s, self._shake_hands, [session, min(2 * pause_s, SHAKE_AGAIN_AT_MOST_S)])
        timer.daemon = True
        timer.start()

    def _tell_keys(self):
        shake = self.keys.sign(
            {
                "type": "postern/handshake/v1",
                "agent": self.name,
                "device": self.keys.device,
                "session": self.session,
                "nonce": self.nonce,
                "agreement": {"key": self.keys.agreement_key, "version": 1},
                "visible": True,
                "edge_devices": [],
                "issued_at_ms": now_ms(),
            }
        )
        self._say(wire.SERVICES, "handshake", shake)
        self._say(self.name, "public/handshake", shake, retain=True)

    def leave(self):
        if self.client is None:
            return
        self._say(wire.SERVICES, "status", self._status("DG")).wait_for_publish(5)
        self.client.disconnect()

    # --- What comes

    def _came(self, _client, _userdata, packet):
        """paho acknowledges a message when this returns; what cannot be kept ends the program and comes again."""
        agent, _, inbox = packet.topic[len(self.topics) + 1 :].partition("/")
        try:
            if agent == wire.SERVICES:
                self._take_directory(packet.payload)
            elif inbox == "handshake":
                self._take_answer(packet.payload)
            elif inbox in ("protected", "private"):
                receiver = wire.Receiver(self.name, self.keys, self.services, self.peers_keys())
                message = receiver.receive(inbox, packet.payload, now_ms())
                if not self.state.came_before(message):
                    shown = {name: message[name] for name in ("from", "level", "subject", "body", "issued_at_ms")}
                    self.tell({"event": "message", **shown})
                    self.state.remember(message)
            elif inbox == "public":
                self._take_public(packet.payload)
            elif inbox in ("public/pingreq", "public/pingack"):
                self._take_ping(inbox, packet.payload)
        except wire.Refused as refused:
            self.tell({"event": "refused_message", "code": refused.code, "detail": str(refused)})

    def _take_public(self, data):
        message = wire.read_public(data)
        known = (message["claimed_from"], message["id"])
        if known not in self.lately:
            self.lately.append(known)
            shown = {name: message[name] for name in ("claimed_from", "subject", "body")}
            self.tell({"event": "message", "level": "public", **shown})

    def peers_keys(self):
        return {name: entry["signing_key"] for name, entry in self.peers.items()}

    def _by_services(self, document):
        if document["signing_key"] not in self.services:
            raise wire.Refused("bad_signature", "it is signed with no key of broker services")
        return document

    def _take_answer(self, data):
        with self.lock:
            self._judge_answer(self._by_services(wire.read_signed(wire.ANSWER, data)))

    def _judge_answer(self, answer):
        if (answer["agent"], answer["session"], answer["nonce"]) != (self.name, self.session, self.nonce):
            raise wire.Refused("replayed", "it answers another handshake")
        if self.answered == "known":
            if answer["verdict"] == "known":
                return
            # Whoever has read the handshake can have it judged again, when it is too old to be taken.
            raise wire.Refused("replayed", "this handshake was answered before, and taken")
        self.answered = answer["verdict"]
        is_news = answer["verdict"] == "known" and self.agreement is None
        self.agreement = answer["agreement"] if answer["verdict"] == "known" else None
        if is_news:
            self._say(wire.SERVICES, "status", self._status("C"))
        self.tell({"event": answer["verdict"], "detail": answer["detail"]})
        self._flush()

    def _take_directory(self, data):
        directory = self._by_services(wire.read_signed(wire.DIRECTORY, data, wire.DIRECTORY_BYTES))
        if directory["issued_at_ms"] > now_ms() + wire.RECEIVED_FUTURE_MS:
            raise wire.Refused("from_the_future")
        if directory["expires_at_ms"] <= now_ms():
            raise wire.Refused("expired")
        if directory["version"] < self.version:
            raise wire.Refused("replayed", "a newer list is there already")
        if directory["version"] > self.version:
            self.peers.clear()
        self.version = directory["version"]
        self.peers.update({entry["agent"]: entry for entry in directory["agents"]})
        self.tell({"event": "peers", "peers": sorted(self.peers)})
        self._flush()

    def _take_ping(self, inbox, data):
        ping = wire.read_signed(wire.PING, data)
        sender, is_question = ping["from"], inbox == "public/pingreq"
        if ping["to"] != self.name or ping["type"] != f"postern/{'ping' if is_question else 'pong'}/v1":
            raise wire.Refused("wrong_recipient")
        known = self.services if sender == wire.SERVICES else {self.peers_keys().get(sender)}
        if ping["signing_key"] not in known:
            raise wire.Refused("unknown_sender", f"the list does not name {sender} with this key")
        if is_question:
            if abs(ping["issued_at_ms"] - now_ms()) > wire.FUTURE_MS:
                raise wire.Refused("expired")
            self._say(sender, "public/pingack", self._ping("pong", sender, ping["nonce"]))
        elif self.asked.get(ping["nonce"], (None,))[0] == sender:
            rtt_ms = (time.monotonic() - self.asked.pop(ping["nonce"])[1]) * 1000
            self.tell({"event": "pong", "from": sender, "rtt_ms": round(rtt_ms, 1)})

    # --- What goes

    def _ping(self, kind, to, nonce):
        members = {"from": self.name, "to": to, "nonce": nonce, "issued_at_ms": now_ms()}
        return self.keys.sign({"type": f"postern/{kind}/v1", **members})

    def send(self, letter):
        """A letter as it stands in a line, sent as soon as the keys for it are known."""
        with self.lock:
            self.outgoing.append(letter)
            self._flush()

    def send_line(self, line):
        """The same, from the line itself; what is no JSON is told, and the next one is taken."""
        try:
            self.send(json.loads(line))
        except (ValueError, RecursionError) as error:
            self._tell_unsent(error)

    def _tell_unsent(self, error):
        detail = f"a letter cannot be sent: {type(error).__name__}: {error}"
        self.tell({"event": "trouble", "detail": detail.encode("ascii", "backslashreplace").decode()})

    def _flush(self):
        with self.lock:
            if self.agreement is None:
                return
            waiting, self.outgoing = self.outgoing, []
            for letter in waiting:
                try:
                    if not self._post(letter):
                        self.outgoing.append(letter)
                except Exception as error:
                    # Whatever is wrong with a letter concerns none but that: others must go out, and once.
                    self._tell_unsent(error)

    def _post(self, letter):
        if "ping" in letter:
            nonce = wire.new_id()
            self.asked[nonce] = (letter["ping"], time.monotonic())
            self._say(letter["ping"], "public/pingreq", self._ping("ping", letter["ping"], nonce))
            return True
        to, level, issued = letter["to"], letter["level"], now_ms()
        common = {"id": wire.new_id(), "issued_at_ms": issued, "subject": letter.get("subject", ""), "body": letter["body"]}
        if level == "public":
            self._say(to[0], "public", {"type": "postern/public/v1", "claimed_from": self.name, **common})
            return True
        times = {"issued_at_ms": issued, "expires_at_ms": issued + 24 * 3_600_000}
        members = {**common, **times, "level": level, "from": self.name, "to": to}
        message = self.keys.sign({"type": "postern/message/v1", **members})
        if level == "protected":
            self._say(wire.SERVICES, "protected", message)
            return True
        if level == "end_to_end" and to[0] not in self.peers:
            return False
        recipient = wire.SERVICES if level == "private" else to[0]
        key = (self.agreement if level == "private" else self.peers[to[0]]["agreement"])["key"]
        header = {"id": message["id"], "level": level, "from": self.name, "to": recipient, **times}
        self._say(wire.SERVICES, "private", wire.seal(self.keys, header, wire.canonical(message), key))
        return True


# --- The program -----------------------------------------------------------------------------------------------------


def tell(event):
    print(json.dumps(event, ensure_ascii=False), flush=True)


def run_enrol(state, text, name):
    invitation = enrol.read_invitation(text)
    # An onion address needs Tor, which this example does without.
    addresses = [*invitation.get("enrol_addresses", []), *invitation["addresses"]]
    origin = next(each for each in addresses if not each.endswith(".onion"))
    server = enrol.Server(origin, invitation["server"], state.keys)
    state.kept.update(origin=origin, server=server.id, root=server.follow(pinned=invitation["root_digest"]))
    state.save()
    waiting = False
    while (accepted := enrol.request_enrolment(server, state.keys, invitation, state.kept["incarnation"], name)) is None:
        if not waiting:
            tell({"event": "waiting", "device": state.keys.device})
            waiting = True
        time.sleep(2)
    state.kept["name"] = accepted
    state.save()
    tell({"event": "accepted", "name": accepted, "device": state.keys.device})


def run_agent(state, url):
    agent, left, pause_s = Agent(state, tell), threading.Event(), 1

    def listen_to_lines():
        for line in sys.stdin.buffer:
            agent.send_line(line)
        left.set()
        agent.leave()

    threading.Thread(target=listen_to_lines, daemon=True).start()
    while not left.is_set():
        try:
            server = state.server()
            state.kept["root"] = server.follow(root=server.root)
            state.save()
            # Asked before each session, since any of it may have changed.
            offer = server.signed("GET", "/messaging")
            broker = next((each for each in offer["brokers"] if each["mqtt"] == 4), None)
            if broker is None:
                raise OSError("the server offers MQTT 5 alone, and this example speaks 3.1.1")
            chosen = url or broker["url"]
            if chosen.startswith("/"):
                chosen = server.origin.replace("http", "ws", 1) + chosen
            agent.session_at(chosen, server, offer, broker["ca"])
            pause_s = 1 if agent.agreement is not None else pause_s
        except (OSError, mqtt.WebsocketConnectionError, enrol.Answered) as error:
            tell({"event": "trouble", "detail": str(error)})
        left.wait(pause_s)
        pause_s = min(2 * pause_s, 60)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("enrol", "run"):
        command = commands.add_parser(name)
        command.add_argument("--state", required=True, help="the folder for keys and memory")
        if name == "enrol":
            command.add_argument("--name", help="the name it would like")
            command.add_argument("invitation", help="what `postern invite` printed")
        else:
            command.add_argument("--url", help="the broker: mqtt://host:port or ws://host:port/path")
    options = parser.parse_args()
    state = State(options.state)
    if options.command == "enrol":
        run_enrol(state, options.invitation, options.name)
    else:
        run_agent(state, options.url)


if __name__ == "__main__":
    main()
