"""`python -m bench`, from the project's root, is `python bench/bench.py`."""

import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.argv[0] = str(HERE / "bench.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
