"""The example in Python without a network: what it makes of answers to its handshakes, and of lists. Prints one line of JSON."""

import json
import sys
import threading
import types

sys.path.insert(0, sys.argv[1])
import agent
import wire

mine, services = (wire.Keys(bytes([each] * 32), bytes([each + 1] * 32)) for each in (1, 3))
agreement = {"key": services.agreement_key, "version": 1}
published, came = [], threading.Condition()


class Client:
    def is_connected(self):
        return True

    def publish(self, topic, data, **_how):
        with came:
            published.append((topic, json.loads(data)))
            came.notify_all()


def shaken(count):
    """The handshakes that broker services got, as soon as they are so many."""
    got = lambda: [document for topic, document in published if topic == "mf2c/broker-services/handshake"]
    with came:
        assert came.wait_for(lambda: len(got()) >= count, 20), f"waited in vain for handshake {count}"
        return got()


def answer(shake, verdict):
    members = {"agent": "snake", "session": shake["session"], "nonce": shake["nonce"], "verdict": verdict, "detail": ""}
    types_ = {"type": "postern/handshake-answer/v1", "agreement": agreement, "issued_at_ms": agent.now_ms()}
    return wire.canonical(services.sign({**types_, **members}))


def directory(expires_at_ms):
    times = {"issued_at_ms": agent.now_ms(), "expires_at_ms": expires_at_ms}
    entry = {"agent": "bob", "device": mine.device, "signing_key": mine.signing_key, "agreement": agreement}
    members = {"version": 1, "part": 1, "parts": 1, "agents": [{**entry, "status": "C", "edge_devices": []}]}
    return wire.canonical(services.sign({"type": "postern/directory/v1", **members, **times}))


def bring(inbox, data):
    snake._came(None, None, types.SimpleNamespace(topic=f"mf2c/{inbox}", payload=data))


events = []
snake = agent.Agent(types.SimpleNamespace(keys=mine, kept={"name": "snake"}), events.append)
snake.client, snake.topics, snake.session = Client(), "mf2c", wire.new_id()
snake.believe({services.signing_key})
snake.nonce = snake.answered = None

with snake.lock:
    snake._shake_hands(snake.session, 0.01)
    # While the lock is held it shakes hands no more.
    bring("snake/handshake", answer(shaken(1)[0], "refused"))
shaken(3)
with snake.lock:
    all_of_them = shaken(3)
    bring("snake/handshake", answer(all_of_them[0], "known"))
    bring("snake/handshake", answer(all_of_them[-1], "known"))
    bring("snake/handshake", answer(all_of_them[-1], "refused"))
snake._shake_hands(snake.session, 0.01)
bring("broker-services/discovery", directory(agent.now_ms()))
bring("broker-services/discovery", directory(agent.now_ms() + 60_000))
peers = []
for believed in ({services.signing_key, mine.signing_key}, {mine.signing_key}):
    snake.believe(believed)
    peers.append([*snake.peers])
heard = [event.get("code", event["event"]) for event in events]
nonces = [shake["nonce"] for shake in all_of_them]
print(
    json.dumps(
        {
            "heard": heard,
            "differ": len(set(nonces)) == len(nonces),
            "more": len(shaken(1)) - len(nonces),
            "may_send": snake.agreement == agreement,
            "peers": peers,
        }
    )
)
