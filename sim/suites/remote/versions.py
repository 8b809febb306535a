"""What the interpreter of a suite's environment says of its own packages."""

from __future__ import annotations

import json
import sys
from importlib import metadata


def main(names: str) -> None:
    """Write the versions of packages, separated by commas, as one JSON object; absent are left out.

    Versions are without local labels such as `+cpu`.
    """
    found = {}
    for name in names.split(","):
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    sys.stdout.write(json.dumps(found))
