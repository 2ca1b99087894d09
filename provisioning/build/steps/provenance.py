"""The bill of materials and the signed statement of provenance, over everything else that a generation will hold."""

from __future__ import annotations

from collections.abc import Sequence

from provisioning.base.disk.artifacts import Target, atomic_output
from provisioning.build.generation import contents, provenance
from provisioning.build.request import Request


def state_provenance(request: Request, targets: Sequence[Target]) -> None:
    """Write the provenance files `targets`; the request's other extras are made. Raises ManifestError, SigningError."""
    others = [target for target in request.extras if target not in targets]
    draft = contents.compose(request, counter=1, extras=others)
    written = {
        provenance.BOM_FILE: lambda: provenance.ml_bom(draft),
        provenance.STATEMENT_FILE: lambda: provenance.envelope(
            provenance.statement(draft),
            sign=request.signer.sign,
            keyid=request.signer.public_key.fingerprint,
        ),
    }
    for target in targets:
        with atomic_output(target) as output:
            output.write_bytes(written[target.name]())
