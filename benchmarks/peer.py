"""Installs lm-eval into an environment of its own, with the versions of torch and transformers that the project runs with."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from figures import BenchmarkError

REQUIREMENT = "lm_eval[hf]==0.4.13"
CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"


def install(environment: Path) -> Path:
    """The environment's python. Once installed it is used again while requirement, constraints and interpreter stay the same."""
    python, stamp = environment / "bin" / "python", environment / "installed-from"
    wanted = f"{REQUIREMENT} {hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest()} {sys.version}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"installing {REQUIREMENT} (once, some minutes) ...", file=sys.stderr)
    _run(sys.executable, "-m", "venv", "--clear", str(environment))
    # torch is pinned by the constraints; an open range would bring gigabytes of CUDA packages along.
    _run(str(python), "-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS), "torch", REQUIREMENT)
    stamp.write_text(wanted)
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    if done.returncode:
        raise BenchmarkError(f"exit status {done.returncode} from: {' '.join(command)}")
