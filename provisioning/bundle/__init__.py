"""Delivery: a verified generation as one file, into a directory, or over a wire; never half of it at the other end.

The receiving half imports the standard library and cryptography only: a vehicle needs no more.
"""

from provisioning.bundle.archive import Member
from provisioning.bundle.check import Checked, check_bundle
from provisioning.bundle.contents import Documents, Listed, listed
from provisioning.bundle.install import deliver, install_bundle, receive
from provisioning.bundle.pack import Bundle, archive_bytes, bundle_name, pack, read_documents_of
from provisioning.bundle.sync import Destination, Sent, parse_destination, remote_command, sync_here, sync_over
from provisioning.bundle.target import Outcome
from provisioning.bundle.trust import trusting, verifying

__all__ = [
    "Bundle",
    "Checked",
    "Destination",
    "Documents",
    "Listed",
    "Member",
    "Outcome",
    "Sent",
    "archive_bytes",
    "bundle_name",
    "check_bundle",
    "deliver",
    "install_bundle",
    "listed",
    "pack",
    "parse_destination",
    "read_documents_of",
    "receive",
    "remote_command",
    "sync_here",
    "sync_over",
    "trusting",
    "verifying",
]
