"""Certificates as brokers and clients of the tests have them."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


def files_for(authority: trustme.CA, folder: Path, host: str) -> tuple[Path, Path, Path]:
    """Files of a server with this name: its authority, its certificate and its key."""
    certificate = authority.issue_cert(host)
    ca, cert, key = (folder / name for name in ("ca.pem", "server.pem", "server.key"))
    authority.cert_pem.write_to_path(ca)
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    return ca, cert, key


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """What a client checks with."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
