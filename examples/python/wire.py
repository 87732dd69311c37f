"""The wire of Postern's messaging: docs/protocol.md in Python, from the bytes up. No network and no files here."""

import base64
import hashlib
import hmac
import json
import math
import re
import secrets
import struct
import unicodedata
from decimal import Decimal

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SERVICES = "broker-services"
MESSAGE_BYTES, WIRE_BYTES, BODY_DEPTH = 72 * 1024, 256 * 1024, 16
DOCUMENT_BYTES, DIRECTORY_BYTES = 16 * 1024, 240 * 1024
LIFETIME_MS, FUTURE_MS, RECEIVED_FUTURE_MS = 30 * 86_400_000, 60_000, 600_000


class Refused(Exception):
    """Something that came is not taken. `code` is one of the refusals of docs/protocol.md."""

    def __init__(self, code, detail=""):
        super().__init__(f"{code}: {detail}")
        self.code = code


# --- Canonical JSON (RFC 8785) ---------------------------------------------------------------------------------------

SAFE = 2**53 - 1


def _number(value):
    if isinstance(value, int):
        if abs(value) > SAFE:
            raise ValueError("a whole number beyond 2^53 - 1")
        return str(value)
    if not math.isfinite(value):
        raise ValueError("a number that is none")
    if value.is_integer():
        return _number(int(value))
    # Python finds the same shortest digits as ECMAScript; only the way they are written differs.
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits = "".join(map(str, digits))
    point = len(digits) + exponent
    if 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        mantissa = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
        text = f"{mantissa}e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return f"-{text}" if sign else text


def _text(value):
    if value is None or isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    # Members are sorted by their UTF-16 code units.
    names = sorted(value, key=lambda name: name.encode("utf-16-be"))
    return "{" + ",".join(f"{_text(name)}:{_text(value[name])}" for name in names) + "}"


def canonical(value):
    """The bytes that are signed and that travel. ValueError for what is no interoperable JSON."""
    return _text(value).encode()


def _once(pairs):
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("the same member twice")
    return dict(pairs)


def depth(value):
    """How many objects and arrays stand in each other."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def parse(data, maximum_bytes, maximum_depth=24, any_form=False):
    """Reads JSON that must be its own canonical form, byte for byte; in any form, it must only have one."""
    if len(data) > maximum_bytes:
        raise Refused("too_large", f"{len(data)} bytes")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once)
        if (canonical(value) != data and not any_form) or depth(value) > maximum_depth:
            raise ValueError("not canonical, or nested too deeply")
        return value
    except (ValueError, RecursionError) as error:
        raise Refused("malformed", str(error)) from None


# --- Bytes and keys --------------------------------------------------------------------------------------------------


def b64(data):
    return base64.b64encode(data).decode()


def unb64(text):
    """Strict: nothing but what `b64` would have written."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused("malformed", "no base64") from None
    if b64(data) != text:
        raise Refused("malformed", "base64 in another form")
    return data


def base32(data):
    """Lower case, without padding."""
    return base64.b32encode(data).decode().lower().rstrip("=")


def new_id():
    """128 random bits: ids of messages, nonces, sessions."""
    return base32(secrets.token_bytes(16))


def sha256(data):
    return hashlib.sha256(data).digest()


PRIME = 2**255 - 19
_ORDER_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
_OTHER_8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"
_little = lambda text: int.from_bytes(bytes.fromhex(text), "little")
SMALL_ED25519 = {0, 1, PRIME - 1, _little(_ORDER_8), _little(_OTHER_8)}
SMALL_X25519 = {
    0,
    1,
    PRIME - 1,
    _little("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    _little("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
}


def verify(public_key, signature, message):
    """Ed25519 without cofactor; keys and points of small order or in another spelling are refused."""
    y, r = (int.from_bytes(part[:32], "little") & (2**255 - 1) for part in (public_key, signature))
    if len(public_key) != 32 or len(signature) != 64 or y >= PRIME or y in SMALL_ED25519 or r in SMALL_ED25519:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


def raw_public(private_key):
    return private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


class Keys:
    """An agent's own: an Ed25519 seed and an X25519 secret, 32 bytes each."""

    def __init__(self, seed, secret):
        self.seed, self.secret = seed, secret
        self.signer = Ed25519PrivateKey.from_private_bytes(seed)
        self.agreement = X25519PrivateKey.from_private_bytes(secret)
        self.public = raw_public(self.signer)
        self.signing_key = b64(self.public)
        self.agreement_public = raw_public(self.agreement)
        self.agreement_key = b64(self.agreement_public)
        # The id names both keys. An agent that changes its agreement key keeps the id of the first one.
        self.device = "dev_" + base32(sha256(b"postern/device-id/v1\0" + self.public + self.agreement_public))

    def sign(self, document):
        """The document with `signing_key` and `signature`."""
        whole = {**document, "signing_key": self.signing_key}
        return {**whole, "signature": b64(self.signer.sign(canonical(whole)))}


# --- HPKE (RFC 9180), base mode, one message: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305 --------------

KEM_SUITE = b"KEM" + struct.pack(">H", 0x0020)
HPKE_SUITE = b"HPKE" + struct.pack(">HHH", 0x0020, 0x0001, 0x0003)


def _extract(suite, salt, label, secret):
    return hmac.digest(salt, b"HPKE-v1" + suite + label + secret, "sha256")


def _expand(suite, key, label, info, length):
    # One block of HKDF-Expand is enough for every length here.
    labeled = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, labeled + b"\1", "sha256")[:length]


def hpke_keys(agreed, enc, recipient, info):
    shared = _expand(KEM_SUITE, _extract(KEM_SUITE, b"", b"eae_prk", agreed), b"shared_secret", enc + recipient, 32)
    hashes = [_extract(HPKE_SUITE, b"", label, data) for label, data in ((b"psk_id_hash", b""), (b"info_hash", info))]
    secret = _extract(HPKE_SUITE, shared, b"secret", b"")
    context = b"\0" + b"".join(hashes)
    return _expand(HPKE_SUITE, secret, b"key", context, 32), _expand(HPKE_SUITE, secret, b"base_nonce", context, 12)


def hpke_seal(recipient, info, aad, plaintext, ephemeral):
    """`ephemeral`: 32 fresh secret bytes. Gives the encapsulated key and the ciphertext."""
    private = X25519PrivateKey.from_private_bytes(ephemeral)
    enc = raw_public(private)
    agreed = private.exchange(X25519PublicKey.from_public_bytes(recipient))
    key, nonce = hpke_keys(agreed, enc, recipient, info)
    return enc, ChaCha20Poly1305(key).encrypt(nonce, plaintext, aad)


def hpke_open(keys, info, aad, enc, ciphertext):
    try:
        agreed = keys.agreement.exchange(X25519PublicKey.from_public_bytes(enc))
        key, nonce = hpke_keys(agreed, enc, keys.agreement_public, info)
        return ChaCha20Poly1305(key).decrypt(nonce, ciphertext, aad)
    except (InvalidTag, ValueError):
        raise Refused("not_opened", "it, its sender, recipient or key was changed") from None


# --- Documents: which members each has, and what may stand in them ----------------------------------------------------


def _like(pattern):
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _whole(low, high):
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _label(length):
    """At most so many UTF-16 units, none of them a control, format, surrogate or line-separating character."""
    bad = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return lambda value: (
        isinstance(value, str)
        and len(value.encode("utf-16-le", "surrogatepass")) <= 2 * length
        and not any(unicodedata.category(char) in bad for char in value)
    )


def _one_of(*values):
    return lambda value: isinstance(value, str) and value in values


def _list(item, low, high, unique=True):
    return lambda value: (
        isinstance(value, list)
        and low <= len(value) <= high
        and all(map(item, value))
        and (not unique or len(set(value)) == len(value))
    )


def _base64(value):
    try:
        return isinstance(value, str) and len(value) <= WIRE_BYTES and unb64(value) is not None
    except Refused:
        return False


NAME = _like(r"(?!broker-services$)[a-z0-9][a-z0-9-]{0,62}")
AGENT = _like(r"[a-z0-9][a-z0-9-]{0,62}")
ID = _like(r"[a-z2-7]{26}")
KEY = _like(r"[A-Za-z0-9+/]{43}=")
AGREEMENT_KEY = _like(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
SIGNATURE = _like(r"[A-Za-z0-9+/]{86}==")
DEVICE = _like(r"dev_[a-z2-7]{52}")
TIME = _whole(0, 8_640_000_000_000_000)
COUNT = _whole(0, SAFE)
EDGE_DEVICES = _list(_label(64), 0, 32)
TIMES = {"issued_at_ms": TIME, "expires_at_ms": TIME}
SIGNED = {"signing_key": KEY, "signature": SIGNATURE}
PRESENCE = _one_of("C", "DG", "DU")


def _struct(members):
    return lambda value: (
        isinstance(value, dict) and value.keys() == members.keys() and all(fits(value[name]) for name, fits in members.items())
    )


AGREEMENT = _struct({"key": AGREEMENT_KEY, "version": _whole(1, 1_000_000)})
MESSAGE = {
    "type": _one_of("postern/message/v1"),
    "id": ID,
    "level": _one_of("protected", "private", "end_to_end"),
    "from": AGENT,
    "to": _list(AGENT, 1, 100),
    **TIMES,
    "subject": _label(128),
    "body": lambda value: True,
    **SIGNED,
}
SEALED = {
    "type": _one_of("postern/sealed/v1"),
    "id": ID,
    "level": _one_of("private", "end_to_end"),
    "from": AGENT,
    "to": AGENT,
    **TIMES,
    "recipient_key": AGREEMENT_KEY,
    "enc": AGREEMENT_KEY,
    "ciphertext": _base64,
    **SIGNED,
}
DELIVERY = {
    "type": _one_of("postern/delivery/v1"),
    "to": AGENT,
    "content": lambda value: _struct(MESSAGE)(value) or _struct(SEALED)(value),
    "delivered_at_ms": TIME,
    **SIGNED,
}
PUBLIC = {
    "type": _one_of("postern/public/v1"),
    "id": ID,
    "claimed_from": AGENT,
    "issued_at_ms": TIME,
    "subject": _label(128),
    "body": lambda value: True,
}
CONNECT = {
    "type": _one_of("postern/mqtt-connect/v1"),
    "agent": NAME,
    "device": DEVICE,
    "server": _like(r"srv_[a-z2-7]{52}"),
    "session": ID,
    "issued_at_ms": TIME,
    **SIGNED,
}
HANDSHAKE = {
    "type": _one_of("postern/handshake/v1"),
    "agent": NAME,
    "device": DEVICE,
    "session": ID,
    "nonce": ID,
    "agreement": AGREEMENT,
    "visible": lambda value: isinstance(value, bool),
    "edge_devices": EDGE_DEVICES,
    "issued_at_ms": TIME,
    **SIGNED,
}
ANSWER = {
    "type": _one_of("postern/handshake-answer/v1"),
    "agent": AGENT,
    "session": ID,
    "nonce": ID,
    "verdict": _one_of("known", "waiting", "refused"),
    "detail": _label(200),
    "agreement": AGREEMENT,
    "issued_at_ms": TIME,
    **SIGNED,
}
STATUS = {
    "type": _one_of("postern/status/v1"),
    "agent": NAME,
    "session": ID,
    "status": PRESENCE,
    "issued_at_ms": TIME,
    **SIGNED,
}
PING = {
    "type": _one_of("postern/ping/v1", "postern/pong/v1"),
    "from": AGENT,
    "to": AGENT,
    "nonce": ID,
    "issued_at_ms": TIME,
    **SIGNED,
}
ENTRY = {
    "agent": NAME,
    "device": DEVICE,
    "signing_key": KEY,
    "agreement": AGREEMENT,
    "status": PRESENCE,
    "edge_devices": EDGE_DEVICES,
}
DIRECTORY = {
    "type": _one_of("postern/directory/v1"),
    "version": COUNT,
    "part": _whole(1, 10_000),
    "parts": _whole(1, 10_000),
    "agents": _list(_struct(ENTRY), 0, 256, unique=False),
    **TIMES,
    **SIGNED,
}


def read(members, data, maximum_bytes=DOCUMENT_BYTES, maximum_depth=24, any_form=False):
    """A document of this kind. Nothing is known of its signature yet."""
    document = parse(data, maximum_bytes, maximum_depth, any_form)
    if not _struct(members)(document):
        raise Refused("malformed", "members are missing, unknown, or of another form")
    return document


def check_signed(document, known_key=None):
    """Whether a document is signed by the key it names, and whether that is the one its sender is known by."""
    if known_key is not None and document["signing_key"] != known_key:
        raise Refused("bad_signature", "it is signed with another key than its sender's")
    signed = {name: value for name, value in document.items() if name != "signature"}
    try:
        key, signature = unb64(document["signing_key"]), unb64(document["signature"])
    except Refused:
        raise Refused("bad_signature", "key or signature is no base64") from None
    if not verify(key, signature, canonical(signed)):
        raise Refused("bad_signature", "its signature does not fit")
    return document


def read_public(data):
    """A public message. Nobody signed it, so it need not be canonical."""
    return read(PUBLIC, data, MESSAGE_BYTES, 1 + BODY_DEPTH, any_form=True)


def _check_agreement(agreement):
    u = int.from_bytes(unb64(agreement["key"]), "little")
    if u >= PRIME or u in SMALL_X25519:
        raise Refused("malformed", "nothing can be sealed to this key")


def read_signed(members, data, maximum_bytes=DOCUMENT_BYTES):
    """A document beside messages: signed by the key it names, with no agreement key that is none."""
    document = check_signed(read(members, data, maximum_bytes))
    for holder in [document, *document.get("agents", [])]:
        if "agreement" in holder:
            _check_agreement(holder["agreement"])
    return document


# --- Messages --------------------------------------------------------------------------------------------------------


def binding(header):
    """What both sides bind into a sealed document: `info` and `aad` of HPKE."""
    names = ["postern/sealed/v1", header["from"], header["to"], header["recipient_key"]]
    return canonical(names), canonical(header)


def seal(keys, header, plaintext, recipient_key, ephemeral=None):
    """Seals bytes to a raw X25519 key (base64) and signs the outside. `header`: id, level, from, to and the times."""
    known = {"type": "postern/sealed/v1", **header, "recipient_key": recipient_key, "signing_key": keys.signing_key}
    info, aad = binding(known)
    enc, box = hpke_seal(unb64(recipient_key), info, aad, plaintext, ephemeral or secrets.token_bytes(32))
    del known["signing_key"]
    return keys.sign({**known, "enc": b64(enc), "ciphertext": b64(box)})


def open_sealed(keys, sealed):
    """The message in it. That the outside's signature is good must have been checked."""
    if sealed["recipient_key"] != keys.agreement_key:
        raise Refused("not_for_this_key", "it is sealed to a key that is not ours any more")
    header = {name: value for name, value in sealed.items() if name not in ("enc", "ciphertext", "signature")}
    plaintext = hpke_open(keys, *binding(header), unb64(sealed["enc"]), unb64(sealed["ciphertext"]))
    message = read(MESSAGE, plaintext, MESSAGE_BYTES, 1 + BODY_DEPTH)
    if any(message[name] != sealed[name] for name in ("id", "issued_at_ms", "expires_at_ms")):
        raise Refused("malformed", "inside and outside differ")
    return message


def _check_times(message, now_ms):
    if message["expires_at_ms"] - message["issued_at_ms"] > LIFETIME_MS:
        raise Refused("lives_too_long")
    if message["issued_at_ms"] > now_ms + RECEIVED_FUTURE_MS:
        raise Refused("from_the_future")
    if message["expires_at_ms"] <= now_ms:
        raise Refused("expired")


class Receiver:
    """An agent as it takes what comes: its name, its keys, the keys of broker services, and the peers it has heard of."""

    def __init__(self, name, keys, services, peers):
        self.name, self.keys, self.services, self.peers = name, keys, services, peers

    def _by_services(self, document):
        if document["signing_key"] not in self.services:
            raise Refused("bad_signature", "it is signed with no key of broker services")
        return check_signed(document)

    def _origin(self, message, level, now_ms):
        """The sender's own word: for us, of this level, signed by it, in its time."""
        if message["level"] != level:
            raise Refused("wrong_level", f"a {message['level']} message came as {level}")
        if self.name not in message["to"]:
            raise Refused("wrong_recipient", "it is for others")
        sender, key = message["from"], message["signing_key"]
        is_its = key in self.services if sender == SERVICES else self.peers.get(sender, key) == key
        if not is_its:
            raise Refused("bad_signature", f"it does not carry the signature of {sender}")
        check_signed(message)
        _check_times(message, now_ms)
        return message

    def _delivered(self, delivery, inbox, now_ms):
        if delivery["to"] != self.name:
            raise Refused("wrong_inbox", f"it was delivered to {delivery['to']}")
        content = delivery["content"]
        if content["type"] == "postern/message/v1":
            if inbox != "protected":
                raise Refused("wrong_inbox", "a message in the clear came to the private inbox")
            return self._origin(content, "protected", now_ms)
        if inbox == "protected" or content["level"] != "end_to_end" or content["to"] != self.name:
            raise Refused("wrong_inbox", "what is sealed came to the wrong inbox, or is for another")
        message = open_sealed(self.keys, content)
        if any(message[name] != content[name] for name in ("from", "signing_key")):
            raise Refused("wrong_sender", "inside and outside differ")
        if len(message["to"]) != 1:
            raise Refused("wrong_recipient", "what is sealed end to end is for one alone")
        return self._origin(message, "end_to_end", now_ms)

    def receive(self, inbox, data, now_ms):
        """The message in what came to `protected` or `private`. Whether its id came before is for the caller to say."""
        try:
            delivery = read(DELIVERY, data, WIRE_BYTES, 2 + BODY_DEPTH)
        except Refused:
            if inbox == "protected":
                raise
            delivery = None
        if delivery is not None:
            return self._delivered(self._by_services(delivery), inbox, now_ms)
        sealed = read(SEALED, data, WIRE_BYTES, 1)
        if sealed["from"] != SERVICES or sealed["to"] != self.name or sealed["level"] != "private":
            raise Refused("wrong_recipient", f"it is from {sealed['from']} for {sealed['to']}")
        return self._origin(open_sealed(self.keys, self._by_services(sealed)), "private", now_ms)
