"""`python -m leanvla` is `leanvla`."""

from __future__ import annotations

import sys

from leanvla.cli import main

if __name__ == "__main__":
    sys.exit(main())
