"""Presets side by side, and all settings, as tables."""

from __future__ import annotations

from typing import Any

from mmed_train.training.presets import PRESETS, SCRIPT, options, shown, table
from mmedeval.console import make_console, make_table, plain, print_table


def print_presets() -> None:
    """A column per preset; below, what each is, and the reasons for its values."""
    console = make_console()
    side_by_side = make_table()
    for name in ("setting", *PRESETS):
        side_by_side.add_column(name, no_wrap=True)
    section = ""
    for option, values in table():
        if option.section != section:
            section = option.section
            side_by_side.add_row(plain(f"[{section}]"), style="dim")
        # What a preset changes stands out; a dash is for what it has no use for.
        cells = [
            _cell(values.get(name, ""), changed=option.name in each.values.get(section, {})) for name, each in PRESETS.items()
        ]
        side_by_side.add_row(plain(option.name), *cells)
    print_table(console, side_by_side)
    for name, preset in PRESETS.items():
        console.print()
        console.print(plain(f"{name}: {preset.summary}"), style="bold")
        reasons = make_table()
        reasons.show_header = False
        reasons.add_column(no_wrap=True)
        reasons.add_column(overflow="fold")
        common = SCRIPT in preset.reasons.values()
        for option in options():
            why = preset.reasons.get(option.path, SCRIPT)
            if why != SCRIPT:
                reasons.add_row(plain(option.path), plain(why))
        if common:
            reasons.add_row("all else", SCRIPT)
        console.print(reasons)
    console.print()
    console.print("mmed-train presets NAME prints a recipe to start from; --options, every setting")


def _cell(value: Any, *, changed: bool) -> Any:
    text = plain("–" if value == "" else "\n".join(value) if isinstance(value, tuple) and value else shown(value))
    text.stylize("bold" if changed else "dim")
    return text


def print_options() -> None:
    """A table per section."""
    console = make_console()
    for section in dict.fromkeys(option.section for option in options()):
        settings = make_table()
        settings.add_column(plain(f"[{section}]" if section else "above all tables"), no_wrap=True, min_width=22)
        settings.add_column("default", overflow="fold", max_width=14)
        settings.add_column("what it does", overflow="fold")
        for each in options():
            if each.section == section:
                choices = each.values.startswith("one of ") and not all(
                    name in each.help for name in each.values.removeprefix("one of ").split(", ")
                )
                words = f"{each.help}; {each.values}" if choices else each.help
                settings.add_row(plain(each.name), plain(shown(each.default)), plain(words))
        console.print(settings)
        console.print()
