"""`mmedeval submit`: a run as the benchmark's leaderboard wants it."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("submit", short_help="The four files of the benchmark's submission guide.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder for the files.")
@click.option(
    "--safe-cells",
    is_flag=True,
    help="An apostrophe before cells that a spreadsheet would compute: for looking at the files, not for sending them.",
)
def command(run: Path, out: Path, safe_cells: bool) -> None:
    """Write the run stored in the folder RUN as the four CSV files that the leaderboard of MMedBench asks for.

    The run must be of all test items in all six languages, hold texts and prompts, and have BLEU and ROUGE:

    \b
    mmedeval run --model hf:./checkpoint --tasks mmedbench --protocol paper --out runs/mine
    mmedeval rescore runs/mine --metrics bleu1,bleu2,bleu3,bleu4,rouge1,rouge2,rougeL
    mmedeval submit runs/mine -o submission
    """
    from mmedeval.cli import one_line, tell
    from mmedeval.runs import read_runs
    from mmedeval.submit import ACCURACY, TASKS, submission, write_submission

    (stored,) = read_runs([run])
    found = submission(stored)
    risky = write_submission(found, out, safe_cells=safe_cells)
    for name, rows in found.files.items():
        click.echo(one_line(f"{out / name}: {len(rows) - 1} row{'' if len(rows) == 2 else 's'}"))
    accuracies = zip(TASKS.values(), found.files[ACCURACY][1], strict=True)
    click.echo("accuracy: " + ", ".join(f"{language} {value}" for language, value in accuracies))
    for note in found.notes:
        tell(f"note: {note}")
    if risky and not safe_cells:
        tell(
            f"note: {risky} cells begin as a spreadsheet's formulas do, and are as the model wrote them; open the files as text, "
            "or look at a copy made with --safe-cells"
        )
