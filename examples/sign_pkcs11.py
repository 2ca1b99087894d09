#!/usr/bin/env python3
"""Sign with an Ed25519 key that stays in a PKCS#11 token or HSM: a `signing.command` for flight.toml.

    [signing]
    public_key = "/home/me/keys/token.pub.pem"
    command = ["python3", "sign_pkcs11.py", "--module", "/usr/lib/softhsm/libsofthsm2.so", "--token", "flight",
               "--key", "operator"]

Reads the bytes on stdin, writes the 64-byte signature on stdout; the PIN comes from the environment (TOKEN_PIN).
Needs `pip install python-pkcs11`. `pkcs11-tool --sign` is no substitute: beyond 1024 bytes it signs in parts, which
EdDSA does not allow (measured with OpenSC 0.23).
"""

from __future__ import annotations

import argparse
import os
import sys

import pkcs11


def main() -> int:
    """Sign stdin; exit 1 with one line on stderr if the token does not."""
    parser = argparse.ArgumentParser(description="sign stdin with an Ed25519 key in a PKCS#11 token")
    parser.add_argument("--module", required=True, help="PKCS#11 library of the token")
    parser.add_argument("--token", required=True, help="label of the token")
    parser.add_argument("--key", required=True, help="label of the private key")
    args = parser.parse_args()
    data = sys.stdin.buffer.read()
    try:
        token = pkcs11.lib(args.module).get_token(token_label=args.token)
        with token.open(user_pin=os.environ["TOKEN_PIN"]) as session:
            key = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=args.key)
            signature = key.sign(data, mechanism=pkcs11.Mechanism.EDDSA)
    except KeyError:
        sys.exit("TOKEN_PIN is not set")
    except pkcs11.exceptions.PKCS11Error as error:
        sys.exit(f"the token does not sign: {type(error).__name__}")
    sys.stdout.buffer.write(signature)
    return 0


if __name__ == "__main__":
    sys.exit(main())
