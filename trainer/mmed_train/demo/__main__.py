"""`python -m mmed_train.demo FOLDER`."""

import sys
from pathlib import Path

from mmed_train.demo.story import tell_story

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit("usage: python -m mmed_train.demo FOLDER")
    tell_story(Path(sys.argv[1]), say=lambda words: print(words, file=sys.stderr, flush=True))
