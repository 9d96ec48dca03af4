"""Makes the hand-made schemas of the data map's tests importable: test folders are no packages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "datamap"))
