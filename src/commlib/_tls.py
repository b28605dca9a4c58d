"""What is wrong with a certificate, told from errors of ``ssl``, which only TLS imports."""

from __future__ import annotations

PORTS = {1883: 8883, 5672: 5671}
"""Where brokers speak TLS whose usual port is that one (IANA's registry of ports)."""
_VERIFY = "CERTIFICATE_VERIFY_FAILED"
# What the other side says of ours (RFC 8446, section 6.2), as OpenSSL spells it. A handshake fails
# before TLS 1.3 where a certificate is wanted and there is none.
_REFUSED = ("ALERT_UNKNOWN_CA", "ALERT_ACCESS_DENIED", "ALERT_HANDSHAKE_FAILURE", "CERTIFICATE")
# Of OpenSSL's x509_vfy.h.
_NOT_YET_VALID = 9
_EXPIRED = 10
_HOST_NAME, _ADDRESS = 62, 64

_ADVICE = {
    _NOT_YET_VALID: "is the clock of this machine right?",
    _EXPIRED: "is the clock of this machine right? Else the broker needs a new one",
    _HOST_NAME: "connect by a name that stands in it",
    _ADDRESS: "connect by a name that stands in it",
}
_OWN_CA = "a CA of your own: ssl=ssl.create_default_context(cafile=...)"
_OWN_CERTIFICATE = (
    "the broker wants a certificate of ours that it trusts: load_cert_chain(...) of the context "
    "that ssl= is given"
)


def fault(exc: BaseException) -> str:
    """What to do about a certificate that one side did not take; empty if it was not that."""
    reason = getattr(exc, "reason", None)
    if not isinstance(exc, OSError) or not isinstance(reason, str):
        return ""
    if reason == _VERIFY:
        return _ADVICE.get(getattr(exc, "verify_code", 0), _OWN_CA)
    is_refused = "ALERT" in reason and any(word in reason for word in _REFUSED)
    return _OWN_CERTIFICATE if is_refused else ""


def heals(exc: BaseException) -> bool:
    """Whether such a fault may go away by itself.

    A machine without a clock battery boots in 1970, where no certificate is valid yet.
    """
    return getattr(exc, "verify_code", 0) == _NOT_YET_VALID
