"""`mmedeval show`: reads a stored run."""

from __future__ import annotations

from pathlib import Path

import click

MOST_SHOWN = 20


@click.command("show", short_help="A stored run: its table, or its samples.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--wrong", is_flag=True, help="The samples that were answered wrongly.")
@click.option("--unread", is_flag=True, help="The samples whose answer could not be read.")
@click.option("--failed", is_flag=True, help="The samples that got no answer.")
@click.option("--sample", metavar="ID", help="One sample, as in test-17 or mmedbench_ja/test-17.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Most samples to show (default: 20, with --json all).")
@click.option("--json", "as_json", is_flag=True, help="Print the record, or the samples as JSON lines.")
def command(run: Path, wrong: bool, unread: bool, failed: bool, sample: str | None, limit: int | None, as_json: bool) -> None:
    """Show the run stored in the folder RUN: its table, or samples with prompt, output, answer and verdict."""
    from mmedeval import console
    from mmedeval.cli import echo_json
    from mmedeval.errors import UnknownNameError
    from mmedeval.store import read_record, read_samples, record_from_json, sample_to_json

    if not (wrong or unread or failed or sample):
        record = record_from_json(read_record(run))
        if as_json:
            echo_json(record.data, indent=2)
        else:
            console.print_record(record, run)
        return
    results = read_samples(run)
    if sample is not None:
        chosen = [result for result in results if sample in (result.sample.id, "/".join(result.key))]
        if not chosen:
            raise UnknownNameError(f"sample in {run}", sample, ["/".join(result.key) for result in results])
    else:
        chosen = [
            result
            for result in results
            if (wrong and result.right is False)
            or (unread and result.status == "unread")
            or (failed and result.status == "failed")
        ]
    shown = chosen[: limit or (None if as_json else MOST_SHOWN)]
    if as_json:
        for result in shown:
            echo_json(sample_to_json(result))
        return
    console.print_samples(shown, len(chosen), whole=sample is not None)
