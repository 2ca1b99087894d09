"""Delivery: a verified generation as one file, into a directory, or over a wire; never half of it at the other end.

The receiving half imports the standard library and cryptography only: a vehicle needs no more.
"""

from provisioning.delivery.bundle.archive import Member
from provisioning.delivery.bundle.check import Checked, check_bundle
from provisioning.delivery.bundle.contents import Documents, Listed, listed
from provisioning.delivery.bundle.pack import Bundle, archive_bytes, bundle_name, documents_of, pack
from provisioning.delivery.install import deliver, install_bundle, receive
from provisioning.delivery.sync import Destination, Sent, parse_destination, remote_command, sync_here, sync_over
from provisioning.delivery.target import Outcome
from provisioning.delivery.trust import trusting, verifying

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
    "documents_of",
    "install_bundle",
    "listed",
    "pack",
    "parse_destination",
    "receive",
    "remote_command",
    "sync_here",
    "sync_over",
    "trusting",
    "verifying",
]
