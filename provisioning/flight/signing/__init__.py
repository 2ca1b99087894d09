"""Ed25519 keys and signatures: public keys, new key pairs, signing by a key file or by an external command."""

from typing import TYPE_CHECKING

from provisioning.base.demand import on_demand
from provisioning.flight.signing.public import (
    SIGNATURE_BYTES,
    PublicKey,
    load_public_key,
    public_key_path,
    read_fingerprint_file,
    read_fingerprints,
)

if TYPE_CHECKING:
    from provisioning.flight.signing.apart import key_apart
    from provisioning.flight.signing.passwords import ask_password, asker, hand_over_password, read_password_fd
    from provisioning.flight.signing.private import generate_key, keys_directory
    from provisioning.flight.signing.signer import Signer, public_key_of, sign
else:
    __getattr__ = on_demand(
        __name__,
        {
            "provisioning.flight.signing.apart": ["key_apart"],
            "provisioning.flight.signing.passwords": [
                "ask_password", "asker", "hand_over_password", "read_password_fd",
            ],
            "provisioning.flight.signing.private": ["generate_key", "keys_directory"],
            "provisioning.flight.signing.signer": ["Signer", "public_key_of", "sign"],
        },
    )  # fmt: skip

__all__ = [
    "SIGNATURE_BYTES",
    "PublicKey",
    "Signer",
    "ask_password",
    "asker",
    "generate_key",
    "hand_over_password",
    "key_apart",
    "keys_directory",
    "load_public_key",
    "public_key_of",
    "public_key_path",
    "read_fingerprint_file",
    "read_fingerprints",
    "read_password_fd",
    "sign",
]
