"""What a broker does to one private message in the report's own design, with pycryptodome: it opens a message that is
encrypted with AES under a key that is encrypted with RSA-2048, verifies the sender's RSA signature, signs, and encrypts for
the recipient in the same way. Prints how many milliseconds of processor time each of COUNT messages took."""

import sys
import time

from Cryptodome.Cipher import AES, PKCS1_OAEP
from Cryptodome.Hash import SHA256
from Cryptodome.PublicKey import RSA
from Cryptodome.Random import get_random_bytes
from Cryptodome.Signature import pkcs1_15

message = b"m" * int(sys.argv[2])
broker, sender, recipient = (RSA.generate(2048) for _ in range(3))


def seal(plain, signer, reader):
    session = get_random_bytes(16)
    signature = pkcs1_15.new(signer).sign(SHA256.new(plain))
    cipher = AES.new(session, AES.MODE_EAX)
    text, tag = cipher.encrypt_and_digest(plain)
    return PKCS1_OAEP.new(reader).encrypt(session), cipher.nonce, tag, text, signature


def unseal(sealed, reader, signer):
    key, nonce, tag, text, signature = sealed
    session = PKCS1_OAEP.new(reader).decrypt(key)
    plain = AES.new(session, AES.MODE_EAX, nonce).decrypt_and_verify(text, tag)
    pkcs1_15.new(signer).verify(SHA256.new(plain), signature)
    return plain


count = int(sys.argv[1])
arrived = seal(message, sender, broker.public_key())
seal(unseal(arrived, broker, sender.public_key()), broker, recipient.public_key())
before = time.process_time()
for _ in range(count):
    seal(unseal(arrived, broker, sender.public_key()), broker, recipient.public_key())
print((time.process_time() - before) * 1000 / count)
