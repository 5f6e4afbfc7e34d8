"""The command line. A command's module is imported when it is used, so that `--help` answers at once."""

from __future__ import annotations

import gc
import importlib
import io
import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from mmedeval.errors import MmedevalError

COMMANDS: Mapping[str, str] = {
    "run": "Evaluate a model on tasks.",
    "list": "What is on offer: tasks, backends, metrics, protocols, trackers, plugins.",
    "show": "A stored run: its table, or its samples.",
    "compare": "Runs over the same items: what changed, and whether by more than chance.",
    "baseline": "Keep a run as one small file, to hold others against.",
    "gate": "Does a run hold against a baseline? The exit code says.",
    "trend": "Accuracy over the checkpoints of a training run.",
    "report": "Finished runs as a page, or as md, csv, parquet.",
    "plot": "Finished runs as a picture: bars, a radar, a curve over checkpoints.",
    "judge": "Let a language model compare the rationales of several runs.",
    "rescore": "Score a stored run again, without the model.",
    "submit": "The four files of the benchmark's submission guide.",
    "human": "Let people rate and rank the rationales of several runs.",
    "agree": "Which metrics agree with people.",
    "doctor": "What works on this machine, and how to get the rest.",
}


CONTEXT: Mapping[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class LazyGroup(click.Group):
    """Knows its commands' names and summaries without importing them; each is in a module of `package` that bears its name."""

    def __init__(self, *args: Any, package: str, summaries: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.package, self.summaries = package, summaries

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.summaries]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.summaries:
            return None
        command: click.Command = importlib.import_module(f"{self.package}.{cmd_name}").command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.summaries and not args[0].startswith("-"):
            from mmedeval.errors import UnknownNameError

            raise UnknownNameError("command", args[0], self.summaries)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*self.summaries.items()])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Errors become one sentence and an exit code: 2 for a wrong call or bad input, 1 for a failed run."""
        for stream in (sys.stdout, sys.stderr):
            # On a terminal that is not Unicode what it cannot show is escaped, not fatal.
            if isinstance(stream, io.TextIOWrapper) and not (stream.encoding or "").lower().startswith("utf"):
                stream.reconfigure(errors="backslashreplace")
        debug = "--debug" in (kwargs.get("args") or sys.argv[1:])
        try:
            # Click's own way to end prints the usage over its sentence; ours prints the sentence alone.
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            raise SystemExit(error.exit_code) from error
        except click.ClickException as error:
            _fail(error.format_message(), error.exit_code, debug)
        except MmedevalError as error:
            _fail(str(error), error.exit_code, debug)
        except BrokenPipeError:
            # The reader, as in `mmedeval list | head`, has enough; nothing is left to flush at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None
        except OSError as error:
            # What the file system refuses (a name too long, no permission) is for the user to mend.
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"{where}{error.strerror or error}", 2, debug)
        except (click.Abort, KeyboardInterrupt):
            click.echo("stopped", err=True)
            raise SystemExit(130) from None
        raise SystemExit(code if isinstance(code, int) else 0)


def start(group: click.Group) -> None:
    """A console script."""
    try:
        group()
    finally:
        # A process that ends need not search a million objects for garbage.
        gc.freeze()


def main() -> None:
    """The command `mmedeval`."""
    start(cli)


def _fail(message: str, code: int, debug: bool) -> NoReturn:
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(f"error: {one_line(message)}", err=True)
    raise SystemExit(code)


def one_line(text: str) -> str:
    from mmedeval.text import printable

    return printable(" ".join(text.split()))


def tell(sentence: str) -> None:
    """Says something on the way, beside the output."""
    click.echo(one_line(sentence), err=True)


def echo_json(value: object, *, indent: int | None = None) -> None:
    """JSON on standard output, in plain ASCII where the output is not Unicode."""
    from mmedeval.text import to_json

    unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    click.echo(to_json(value, indent=indent, ascii_only=not unicode))


def show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from mmedeval import __version__

        click.echo(f"{ctx.command.name} {__version__}")
        ctx.exit()


@click.group(
    "mmedeval",
    cls=LazyGroup,
    package="mmedeval.cli",
    summaries=COMMANDS,
    context_settings=CONTEXT,
)
@click.option("--debug", is_flag=True, help="Show the full traceback of every error.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Show the version.")
def cli(debug: bool) -> None:
    """Evaluate language models on multilingual medical questions.

    \b
    mmedeval run --model hf:PATH --tasks mmedbench_ja
    mmedeval show runs/...
    """
