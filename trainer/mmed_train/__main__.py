"""`python -m mmed_train`, as `torchrun -m mmed_train` starts it."""

from mmed_train.cli import main

main()
