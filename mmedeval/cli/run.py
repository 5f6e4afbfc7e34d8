"""`mmedeval run`: options -> plan -> run -> table."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from mmedeval.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from mmedeval.types import StopEarly

CONFIG_PAIRS = "mmedeval.config.pairs"
PROTOCOLS = ("auto", "letter", "cloze", "chat", "paper", "paper-direct")


def _load_config(ctx: click.Context, _: click.Parameter, value: Path | None) -> Path | None:
    """Makes a TOML file's values the defaults of the options with the same names."""
    if value is None:
        return None
    try:
        content = tomllib.loads(value.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"--config {value} does not exist") from error
    # A ValueError is also what Python says of a number with thousands of digits.
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--config {value} cannot be read: {error}") from error
    names = {
        option.removeprefix("--"): parameter
        for parameter in ctx.command.params
        if isinstance(parameter, click.Option) and parameter.name != "config"
        for option in parameter.opts
        if option.startswith("--")
    }
    defaults: dict[str, Any] = {}
    for key, setting in content.items():
        name = key.replace("_", "-")
        if name not in names:
            raise UnknownNameError(f"setting in {value}", key, names)
        parameter = names[name]
        assert parameter.name is not None
        defaults[parameter.name] = _as_option(value, key, setting, multiple=parameter.multiple, flag=parameter.is_flag)
    # Options win one by one, also over the pairs of a table.
    ctx.meta[CONFIG_PAIRS] = {name: defaults.get(name, ()) for name in ("model_arg", "metric_arg")}
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return value


def _as_option(file: Path, key: str, setting: Any, *, multiple: bool, flag: bool) -> Any:
    if flag:
        if not isinstance(setting, bool):
            raise UsageError(f"{file}: {key} is {setting!r}, neither true nor false")
        return setting
    if multiple:
        if isinstance(setting, dict):
            return [f"{name}={_plain(item)}" for name, item in setting.items()]
        return [str(item) for item in setting] if isinstance(setting, list) else [str(setting)]
    if isinstance(setting, list):
        return ",".join(str(item) for item in setting)
    if isinstance(setting, dict):
        raise UsageError(f"{file}: {key} is a table; give one value")
    return _plain(setting)


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _orders(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | Literal["all"] | None:
    if value is None or value == "all":
        return "all" if value else None
    if value.isascii() and value.isdigit() and int(value) > 1:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither 'all' nor a number of orders from 2 on", ctx, parameter)


def _stop_early(options: Mapping[str, Any]) -> StopEarly | None:
    from mmedeval.types import StopEarly

    given = {name: options[name] for name in ("baseline", "max_drop", "detect", "confidence") if options[name] is not None}
    if options["stop_early"]:
        if "baseline" not in given:
            raise UsageError("--stop-early needs something to hold the run against; name a run or a baseline with --baseline")
        return StopEarly(**given)
    if given:
        raise UsageError(f"--{next(iter(given)).replace('_', '-')} is for --stop-early, which was not asked for; add it")
    return None


def names(value: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (value or "").split(",") if part.strip())


def metric_arguments(pairs: Sequence[str], **options: str | None) -> dict[str, str]:
    """The settings of metrics; `options` are those that have an option of their own."""
    return {**_pairs(pairs, "--metric-arg"), **{name: value for name, value in options.items() if value is not None}}


def _pairs(arguments: Sequence[str], option: str) -> dict[str, str]:
    pairs = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {argument!r} is no pair; write NAME=VALUE")
        pairs[key.strip()] = value.strip()
    return pairs


@click.command("run", short_help="Evaluate a model on tasks.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_load_config,
    metavar="FILE",
    help="TOML file with the options below under the same names; options given here win.",
)
@click.option("--model", required=True, metavar="SCHEME:NAME", help="What to evaluate, as in hf:./checkpoint or baseline:random.")
@click.option(
    "--model-arg",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the backend; may be repeated. See: mmedeval list backends",
)
@click.option(
    "--concurrency", type=click.IntRange(min=1), metavar="N", help="Most requests in flight, for models behind a server."
)
@click.option(
    "--max-cost",
    type=click.FloatRange(min=0, min_open=True),
    metavar="USD",
    help="Ask no more once this command may have spent so much.",
)
@click.option("--batch", is_flag=True, help="The provider's batch interface: half the price, within a day.")
@click.option(
    "--tasks", required=True, metavar="NAME,...", help="Tasks, groups, or globs: mmedbench_ja, mmedbench, 'mmedbench_*'."
)
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    default="auto",
    show_default=True,
    help="How a task is put to the model. See: mmedeval list protocols",
)
@click.option(
    "--shots",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Solved examples in front of each question, from the train split.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N items of each task.")
@click.option("--languages", metavar="CODE,...", help="Only tasks in these languages, as in ja,fr.")
@click.option("--metrics", metavar="NAME,...", help="Metrics beside the default ones. See: mmedeval list metrics")
@click.option(
    "--metric-arg", multiple=True, metavar="NAME=VALUE", help="A setting of a metric; may be repeated. See docs/metrics.md"
)
@click.option(
    "--rationale-items",
    type=click.Choice(["checked", "all"]),
    help="Rationales that a person found good (default), or all. Short for --metric-arg rationale_items=...",
)
@click.option(
    "--judge", metavar="SCHEME:NAME", help="The model that judges, for the metric judge. Short for --metric-arg judge=..."
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Draws the examples, and samples text.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), metavar="N", help="Longest answer (default: 1024; paper protocols 1000)."
)
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, metavar="T", help="0 is greedy.")
@click.option("--chat-template/--no-chat-template", default=True, help="For chat: use the model's template, or plain text.")
@click.option("--exclude-images", is_flag=True, help="Leave out questions that need a picture, which the data do not have.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with Train/ and Test/, or MMedBench.zip (also: MMEDBENCH_DIR).",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Run folder (default: one under runs/, named after the run)."
)
@click.option(
    "--rotations",
    callback=_orders,
    metavar="all|N",
    help="Ask every item under rotated orders of its options, too: all of them, or N with the given one.",
)
@click.option("--stop-early", is_flag=True, help="Stop once it is certain how the model compares with --baseline.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    metavar="FILE|RUN",
    help="For --stop-early: a run, or a file of mmedeval baseline, on the same items.",
)
@click.option("--max-drop", type=float, metavar="POINTS", help="For --stop-early: how far accuracy may fall (default: 1).")
@click.option("--detect", type=float, metavar="POINTS", help="For --stop-early: a fall that must not be missed (default: 5).")
@click.option("--confidence", type=float, metavar="SHARE", help="For --stop-early: how sure an answer must be (default: 0.95).")
@click.option(
    "--tracker",
    multiple=True,
    metavar="NAME[=WHERE]",
    help="Send the run to a tracker of experiments, as in tensorboard=runs/tb; may be repeated. See: mmedeval list trackers",
)
@click.option("--save-requests/--no-save-requests", default=True, help="Store the prompts with the answers.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Evaluate a model on tasks, and print a table with intervals.

    Answers are stored as they arrive: a run that was stopped goes on where it was with the same command.

    \b
    mmedeval run --model baseline:random --tasks mmedbench_mini
    mmedeval run --model hf:./checkpoint --tasks mmedbench_ja --shots 3
    """
    from mmedeval import console
    from mmedeval.catalog import Catalog
    from mmedeval.cli import echo_json, one_line, tell
    from mmedeval.gate import EXIT_CODES
    from mmedeval.host import make_host
    from mmedeval.runner import RunStopped, run
    from mmedeval.trackers import Watcher
    from mmedeval.types import RunPlan

    from_config = ctx.meta.get(CONFIG_PAIRS, {})
    plan = RunPlan(
        model=options["model"],
        model_args={
            **_pairs([*from_config.get("model_arg", ()), *options["model_arg"]], "--model-arg"),
            # Settings of servers that have an option of their own.
            **{name: str(options[name]) for name in ("concurrency", "max_cost") if options[name] is not None},
            **({"batch": "true"} if options["batch"] else {}),
        },
        tasks=names(options["tasks"]),
        protocol=options["protocol"],
        shots=options["shots"],
        limit=options["limit"],
        languages=names(options["languages"]),
        metrics=names(options["metrics"]),
        metric_args=metric_arguments(
            [*from_config.get("metric_arg", ()), *options["metric_arg"]],
            rationale_items=options["rationale_items"],
            judge=options["judge"],
        ),
        seed=options["seed"],
        max_tokens=options["max_tokens"],
        temperature=options["temperature"],
        chat_template=options["chat_template"],
        exclude_images=options["exclude_images"],
        data_dir=options["data_dir"],
        save_requests=options["save_requests"],
        rotations=options["rotations"],
        stop_early=_stop_early(options),
    )
    progress = [] if options["quiet"] else [console.Progress()]
    host = make_host(extra=progress)
    catalog = Catalog(host, tell)
    watchers = [Watcher(*catalog.open_tracker(reference), tell) for reference in options["tracker"]]
    for watcher in watchers:
        host.manager.register(watcher)
    try:
        record, folder = run(plan, catalog, options["out"])
        for watcher in watchers:
            watcher.catch_up(plan, record)
    except RunStopped as stop:
        click.echo(one_line(str(stop)), err=True)
        ctx.exit(130)
    finally:
        for bar in progress:
            bar.stop()
        for watcher in watchers:
            watcher.close()
    if options["as_json"]:
        echo_json(record.data, indent=2)
    else:
        console.print_record(record, folder)
    if tested := record.data.get("sequential"):
        ctx.exit(EXIT_CODES[tested["answer"]])
