"""What counts depend on besides this code, in words that say nothing of whose machine it is."""

from __future__ import annotations

import platform
import subprocess
import sysconfig
from importlib.metadata import PackageNotFoundError, version

from bench import machine

LIBRARIES = ("msgspec", "hiredis", "uvloop")  # those that are written in C, or the like


def made_with() -> dict[str, str]:
    """The builds of all that is counted along with it."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": platform.python_compiler(),
        "options": _options(),
        "libc": " ".join(platform.libc_ver()),
        "architecture": platform.machine(),
        "valgrind": _valgrind(),
        **{name: _version(name) for name in LIBRARIES},
    }


def described() -> dict[str, str]:
    """The machine, on which counts do not depend."""
    about = machine.describe()
    return {name: str(about[name]) for name in ("processor", "system")}


def _options() -> str:
    """How Python was configured, as far as it makes other code; folders are left out."""
    words = str(sysconfig.get_config_var("CONFIG_ARGS") or "").replace("'", "").split()
    return " ".join(
        sorted(
            word for word in words if word.startswith(("--enable-", "--with-")) and "/" not in word
        )
    )


def _valgrind() -> str:
    done = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip().removeprefix("valgrind-")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
