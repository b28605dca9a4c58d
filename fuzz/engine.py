"""One target under atheris: a process of its own, which `__main__` starts.

python -m fuzz.engine TARGET [options of libFuzzer, folders or files of inputs]
"""

from __future__ import annotations

import sys
import traceback

import atheris  # type: ignore[import-not-found,unused-ignore] # only `make fuzz` installs it


def main() -> None:
    """Run one target for as long as the options say."""
    name, *options = sys.argv[1:]
    atheris.enabled_hooks.add("str")
    with atheris.instrument_imports(include=["commlib"], enable_loader_override=False):
        from fuzz import target

        run = target(name)

    def run_and_tell(data: bytes) -> None:
        try:
            run(data)
        except BaseException:
            traceback.print_exc()  # with its causes, which atheris leaves out
            raise

    atheris.Setup([f"fuzz.{name}", *options], run_and_tell)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
