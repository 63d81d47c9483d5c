#!/usr/bin/env python3
"""Makes the vectors of tests/derive.rs with another implementation: python3 -m pip install cryptography.

The derivation, in full: HKDF-SHA256 (RFC 5869) over the X25519 shared secret (RFC 7748) of two hosts' keys.
"""

import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def field(content):
    """A field of the info: its length as 4 bytes, the most significant first, and the content."""
    return struct.pack(">I", len(content)) + content


def public(private):
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def key(cluster, sender, receiver, lane, own, peer):
    """The key of one association; `own` is the private key of either host, `peer` the other's."""
    (sender_member, sender_public), (receiver_member, receiver_public) = sender, receiver
    info = b"".join(
        map(field, [cluster, sender_member, receiver_member, sender_public, receiver_public, bytes([lane]), b"key"])
    )
    hkdf = HKDF(algorithm=hashes.SHA256(), length=36, salt=b"drover ipsec v1", info=info)
    return hkdf.derive(own.exchange(peer.public_key()))


A = X25519PrivateKey.from_private_bytes(bytes(range(0, 32)))
B = X25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
C = X25519PrivateKey.from_private_bytes(bytes(range(64, 96)))
CLUSTER = b"00112233445566778899aabbccddeeff"
ALPHA = (b"a1a1a1a1a1a1a1a1", public(A))
BETA = (b"b2b2b2b2b2b2b2b2", public(B))
BETA_LATER = (b"b2b2b2b2b2b2b2b2", public(C))

print("PUBLIC_A", public(A).hex())
print("PUBLIC_B", public(B).hex())
print("PUBLIC_C", public(C).hex())
for name, sender, receiver, lane, own, peer in [
    ("A to B, lane 0", ALPHA, BETA, 0, A, B),
    ("B to A, lane 0", BETA, ALPHA, 0, B, A),
    ("A to B, lane 7, the next generation of B", ALPHA, BETA_LATER, 7, A, C),
]:
    print(name, key(CLUSTER, sender, receiver, lane, own, peer).hex())
