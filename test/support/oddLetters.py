"""The example in Python without a network: what it makes of lines that are no letters. Prints one line of JSON."""

import json
import sys
import types

sys.path.insert(0, sys.argv[1])
import agent
import wire

mine, services = (wire.Keys(bytes([each] * 32), bytes([each + 1] * 32)) for each in (1, 3))
published, events = [], []


class Client:
    def publish(self, _topic, data, **_how):
        published.append(json.loads(data)["body"])


snake = agent.Agent(types.SimpleNamespace(keys=mine, kept={"name": "snake"}), events.append)
snake.client, snake.topics = Client(), "mf2c"


def letter(body, **members):
    return json.dumps({"level": "protected", "to": ["bob"], "body": body, **members}).encode()


lines = [
    letter("A"),
    b"no JSON",
    b"\xff\xfe",
    b"5",
    b'{"level": "protected", "to": ["bob"]}',
    b'{"level": "protected", "to": ["bob"], "body": 1e999}',
    b'{"level": "protected", "to": ["bob"], "body": "\\ud800"}',
    b"[" * 100_000,
    letter("for a hidden one", level="end_to_end"),
    letter("B"),
]
for line in lines:
    snake.send_line(line)
snake.agreement = {"key": services.agreement_key, "version": 1}
for _list in range(3):
    snake._flush()
snake.send_line(letter("C"))
# What is told must be fit to be printed.
json.dumps(events, ensure_ascii=False).encode()
print(json.dumps({"published": published, "told": [event["event"] for event in events], "waits": len(snake.outgoing)}))
