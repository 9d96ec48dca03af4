"""Makes the hand-made schemas and plans importable: test folders are no packages."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "datamap")]
