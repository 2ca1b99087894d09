"""How a reader checks the cache: by flightcache, and by tools that every machine has."""

from __future__ import annotations

import shlex
from html import escape

from provisioning.report.html import Markup
from provisioning.report.model import ReportModel

SIGNATURE = "openssl pkeyutl -verify -rawin -pubin -inkey KEY.pub.pem -in Manifest.json -sigfile Manifest.json.sig"
FINGERPRINT = "openssl pkey -pubin -in KEY.pub.pem -outform DER | tail -c 32 | sha256sum"
LISTED_FILES = """python3 - <<'END' | sha256sum --check
import json
def listed(part):
    if isinstance(part, dict) and "path" in part: print(part["sha256"] + "  " + part["path"])
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else (): listed(inner)
listed(json.load(open("Manifest.json"))["artifacts"])
END"""


def verify_command(model: ReportModel) -> str:
    """Return the flightcache command that checks this cache for this flight."""
    flight = model.manifest.flight
    words = ["flightcache", "verify", ".", "--public-key", "KEY.pub.pem"]
    words += ["--flight", flight.flight_id] if flight.flight_id else []
    words += ["--aircraft", flight.aircraft_id] if flight.aircraft_id else []
    return shlex.join(words)


def steps(model: ReportModel) -> Markup:
    """Return the numbered steps."""
    fingerprint = (
        f' It must be <span class="hash">{escape(model.key_fingerprint)}</span>.' if model.key_fingerprint else ""
    )
    return Markup(
        "<p>KEY.pub.pem is the public key of whoever signed; it must reach you by another way than the cache. "
        "Run the commands in the directory of this page.</p>"
        f'<ol class="steps"><li>All of it, as the aircraft does:{_command(verify_command(model))}</li>'
        f"<li>By hand: is this the key you were given? Its fingerprint:{_command(FINGERPRINT)}{fingerprint}</li>"
        f"<li>Did that key sign this Manifest?{_command(SIGNATURE)}</li>"
        f"<li>Are the files those that the Manifest lists?{_command(LISTED_FILES)}"
        "Steps 2 to 4 do not notice unlisted files, another flight, or an older cache; step 1 does.</li></ol>"
    )


def _command(command: str) -> str:
    return f'<pre tabindex="0"><code>{escape(command)}</code></pre>'
