"""``python -m stgcn_fast``: the same as the command ``stgcn-fast``."""

from __future__ import annotations

import sys

from stgcn_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
