"""Import this first: a script sees its own folder but not the one above, where tslim lies in a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
