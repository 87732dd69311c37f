"""How a device becomes known: the trust root, the enrolment, the offer of a broker. The HTTP part of docs/protocol.md."""

import base64
import http.client
import json
import time
import urllib.parse

import wire

API = "/api/device/v1"
DOCUMENT_BYTES, ANSWER_BYTES = 64 * 1024, 4 * 1024 * 1024


class Untrusted(Exception):
    """What the server says is not signed as it must be."""


class Answered(Exception):
    """The server's signed refusal."""

    def __init__(self, code, message):
        super().__init__(f"the server refuses ({code}): {message}")
        self.code = code


def digest(data):
    return "sha256:" + wire.sha256(data).hex()


# --- Signed documents: DSSE envelopes --------------------------------------------------------------------------------


def _to_sign(payload_type, payload):
    return b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)


def sign_envelope(keys, kind, document):
    payload, payload_type = wire.canonical(document), f"application/vnd.postern.{kind}+json"
    signature = keys.signer.sign(_to_sign(payload_type, payload))
    signatures = [{"keyid": keys.device, "sig": wire.b64(signature)}]
    return {"payloadType": payload_type, "payload": wire.b64(payload), "signatures": signatures}


def read_envelope(kind, envelope):
    """What an envelope holds, and its bytes; nothing is known of its signatures."""
    try:
        payload = wire.unb64(envelope["payload"])
        document = wire.parse(payload, DOCUMENT_BYTES)
        if envelope["payloadType"] != f"application/vnd.postern.{kind}+json" or document["type"] != f"postern/{kind}/v1":
            raise Untrusted(f"it is no {kind}")
        return document, payload
    except (wire.Refused, KeyError, TypeError) as error:
        raise Untrusted(f"no {kind} that can be read: {error}") from None


def verify_envelope(kind, envelope, keys, threshold):
    """`keys`: raw public keys by their ids. Each counts once, however often it signed."""
    document, payload = read_envelope(kind, envelope)
    signed = _to_sign(envelope["payloadType"], payload)
    good = {
        keys[each["keyid"]]
        for each in envelope["signatures"][:16]
        if each["keyid"] in keys and wire.verify(keys[each["keyid"]], wire.unb64(each["sig"]), signed)
    }
    if threshold < 1 or len(good) < threshold:
        raise Untrusted(f"the {kind} has {len(good)} good signatures and needs {threshold}")
    return document, payload


# --- The trust root --------------------------------------------------------------------------------------------------


def role(root, name):
    """Raw keys of a role by their ids, and how many of them must sign."""
    entry = root["roles"][name]
    return {key: wire.unb64(root["keys"][key]["public_key"]) for key in entry["keys"]}, entry["threshold"]


def _check_keys(root):
    for key, entry in root["keys"].items():
        if key != "key_" + wire.base32(wire.sha256(b"postern/key/v1\0" + wire.unb64(entry["public_key"]))):
            raise Untrusted(f"the root's key {key} does not have that id")


def first_root(envelope, pinned):
    """The root that an invitation names by its digest, signed by its own root role."""
    root, payload = read_envelope("root", envelope)
    _check_keys(root)
    verify_envelope("root", envelope, *role(root, "root"))
    if digest(payload) != pinned or root["version"] != 1:
        raise Untrusted("the server's first root is not the one of the invitation")
    return root


def next_root(current, envelope):
    """The root after `current`: signed by the root roles of both."""
    root, _ = read_envelope("root", envelope)
    _check_keys(root)
    verify_envelope("root", envelope, *role(current, "root"))
    verify_envelope("root", envelope, *role(root, "root"))
    if root["version"] != current["version"] + 1:
        raise Untrusted(f"version {root['version']} does not follow {current['version']}")
    return root


# --- Requests --------------------------------------------------------------------------------------------------------


class Server:
    """A server at one of its addresses. `root`: the newest that is known; `device` signs the requests."""

    def __init__(self, origin, server_id, keys):
        self.origin, self.id, self.keys, self.root, self.offset_s = origin, server_id, keys, None, 0

    def _send(self, method, target, body=b"", headers=None):
        place = urllib.parse.urlsplit(self.origin)
        kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        connection = kind(place.hostname, place.port, timeout=30)
        try:
            connection.request(method, API + target, body, {"Host": place.netloc, **(headers or {})})
            response = connection.getresponse()
            data = response.read(ANSWER_BYTES + 1)
            if len(data) > ANSWER_BYTES:
                raise Untrusted("its answer is too long")
            return response, data
        finally:
            connection.close()

    def plain(self, target):
        """An unsigned question. The answer proves itself, or is only a claim."""
        response, data = self._send("GET", target)
        if response.status != 200:
            raise ConnectionError(f"{self.origin} answered {response.status}")
        return json.loads(data)

    def signed(self, method, target, document=None):
        """A signed request (RFC 9421) and its signed answer."""
        try:
            return self._exchange(method, target, document)
        except Answered as refused:
            if refused.code != "clock_skew":
                raise
            # The answer told the server's time, for our nonce.
            return self._exchange(method, target, document)

    def _exchange(self, method, target, document):
        body = b"" if document is None else json.dumps(document).encode()
        content_type = "application/octet-stream" if document is None else "application/json"
        nonce = wire.new_id()
        content_digest = f"sha-256=:{wire.b64(wire.sha256(body))}:"
        covered = '("@method" "@authority" "@path" "@query" "content-digest" "content-type")'
        created = int(time.time() + self.offset_s)
        identity = f'keyid="{self.keys.device}";alg="ed25519";tag="postern-v1"'
        parameters = f'{covered};created={created};nonce="{nonce}";{identity}'
        path, _, query = (API + target).partition("?")
        lines = [
            f'"@method": {method}',
            f'"@authority": {urllib.parse.urlsplit(self.origin).netloc}',
            f'"@path": {path}',
            f'"@query": ?{query}',
            f'"content-digest": {content_digest}',
            f'"content-type": {content_type}',
            f'"@signature-params": {parameters}',
        ]
        signature = self.keys.signer.sign("\n".join(lines).encode())
        headers = {
            "Content-Digest": content_digest,
            "Content-Type": content_type,
            "Signature-Input": f"postern={parameters}",
            "Signature": f"postern=:{wire.b64(signature)}:",
        }
        response, data = self._send(method, target, body, headers)
        header = response.getheader("Postern-Statement")
        if header is None:
            raise ConnectionError(f"{self.origin} answered {response.status} without a signature")
        statement = self._statement(json.loads(wire.unb64(header)))
        expected = {"server": self.id, "device": self.keys.device, "nonce": nonce, "status": response.status}
        if any(statement[name] != value for name, value in expected.items()) or statement["body_digest"] != digest(data):
            raise Untrusted("its signed word is about another answer")
        answer = json.loads(data)
        if response.status != 200:
            if answer["error"] == "clock_skew":
                self.offset_s = statement["at_ms"] / 1000 + 1 - time.time()
            raise Answered(answer["error"], answer["message"])
        return answer

    def _statement(self, envelope):
        """By the very key that the root gives this server."""
        entry = next(each for each in self.root["servers"] if each["id"] == self.id)
        public_key = wire.unb64(self.root["keys"][entry["key"]]["public_key"])
        return verify_envelope("statement", envelope, {self.id: public_key}, 1)[0]

    def follow(self, root=None, pinned=None):
        """The newest root: from the one at hand, or from the first one, which an invitation pins."""
        while True:
            version = 1 if root is None else root["version"] + 1
            envelopes = self.plain(f"/roots?from={version}")["roots"]
            for envelope in envelopes:
                root = first_root(envelope, pinned) if root is None else next_root(root, envelope)
            if root is None:
                raise ConnectionError("the server has no trust root yet")
            if not envelopes:
                break
        if root["expires_at_ms"] <= (time.time() + self.offset_s) * 1000:
            raise Untrusted("the trust root has expired")
        if all(each["id"] != self.id for each in root["servers"]):
            raise Untrusted("the trust root does not name this server")
        self.root = root
        return root


# --- Enrolment -------------------------------------------------------------------------------------------------------


def read_invitation(text):
    """What `postern invite` printed: a secret, the server, and the first root by its digest."""
    prefix, _, data = text.strip().partition(".")
    if prefix != "postern-invite-v1":
        raise ValueError("this is no invitation")
    return json.loads(base64.urlsafe_b64decode(data + "=" * (-len(data) % 4)))


def prove_invitation(invitation, device):
    """Shows that the secret is held, for this device, server and root alone."""
    keys = wire.Keys(wire.sha256(b"postern/invitation-key/v1\0" + invitation["secret"].encode()), bytes(31) + b"\1")
    bound = "\0".join(["postern/invitation-proof/v1", device, invitation["server"], invitation["root_digest"]])
    return {
        "id": "inv_" + wire.base32(wire.sha256(b"postern/invitation-id/v1\0" + keys.public)),
        "key": keys.signing_key,
        "signature": wire.b64(keys.signer.sign(bound.encode())),
    }


BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def recipient_of(public_key):
    """`age1…`: the agreement key as age writes it (BIP 173)."""
    bits = int.from_bytes(public_key, "big") << 4
    data = [bits >> shift & 31 for shift in range(255, -1, -5)]
    state = 1
    for value in [3, 3, 3, 0, 1, 7, 5, *data, 0, 0, 0, 0, 0, 0]:
        top, state = state >> 25, (state & 0x1FFFFFF) << 5 ^ value
        for index, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            state ^= term if top >> index & 1 else 0
    check = [(state ^ 1) >> 5 * (5 - index) & 31 for index in range(6)]
    return "age1" + "".join(BECH32[value] for value in data + check)


def request_enrolment(server, keys, invitation, incarnation, name=None):
    """Asks to be let in; the agent's name once an operator has decided, else None. To be asked again and again."""
    recipient = recipient_of(keys.agreement_public)
    proof = prove_invitation(invitation, keys.device)
    document = {
        "type": "postern/enrolment/v1",
        "device": keys.device,
        "name": name,
        "signing_key": keys.signing_key,
        "recipient": recipient,
        "server": server.id,
        "root_digest": invitation["root_digest"],
        "incarnation": incarnation,
        "invitation": proof,
        "software": "postern-python-example",
        "issued_at_ms": int((time.time() + server.offset_s) * 1000),
    }
    answer = server.signed("POST", "/enrolment", sign_envelope(keys, "enrolment", document))
    if answer["status"] in ("rejected", "revoked"):
        raise Untrusted(f"operators have {answer['status']} this device")
    if answer["status"] != "accepted":
        return None
    operators = role(server.root, "operators")
    if answer["admission"] is not None:
        admission, _ = verify_envelope("admission", answer["admission"], *operators)
        ours = {"device": keys.device, "signing_key": keys.signing_key, "recipient": recipient, "server": server.id}
        if admission["decision"] != "accept" or any(admission[name] != value for name, value in ours.items()):
            raise Untrusted("the admission is about another device")
        return admission["name"]
    before, _ = verify_envelope("preauthorisation", answer["preauthorisation"], *operators)
    ours = {"server": server.id, "root_digest": invitation["root_digest"]}
    if before["subject"] not in (proof["id"], keys.device) or any(before[name] != ours[name] for name in ours):
        raise Untrusted("the acceptance made beforehand is about another device")
    return before["name"]
