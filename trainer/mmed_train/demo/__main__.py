"""`python -m mmed_train.demo FOLDER`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit("usage: python -m mmed_train.demo FOLDER")
    # Here, since each process that this one starts reads all that is above.
    from mmed_train.demo.story import tell_story

    tell_story(Path(sys.argv[1]), say=lambda words: print(words, file=sys.stderr, flush=True))
