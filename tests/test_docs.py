"""What the documentation shows is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval.runner import prepare
from mmedeval.testing import ScriptedBackend, prefer
from mmedeval.types import Generation, RunPlan

ROOT = Path(__file__).parent.parent
PROTOCOLS = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
RENDERED = re.findall(r"<!-- rendered: (\S+) (\S+) (\d+) (\S+) -->\n```text\n(.*?)\n```", PROTOCOLS, re.DOTALL)


@pytest.mark.parametrize(("task", "protocol", "shots", "sample", "shown"), RENDERED)
def test_a_prompt_shown_in_the_documentation_is_the_prompt_that_is_sent(
    task: str, protocol: str, shots: str, sample: str, shown: str
) -> None:
    catalog = Catalog(make_host())
    backend = ScriptedBackend(write=lambda request: Generation(request_id=request.id, text=""), score=prefer(lambda request: "A"))
    plan = RunPlan(model="scripted:any", tasks=(task,), protocol=protocol, shots=int(shots))  # type: ignore[arg-type]
    prepared = prepare(plan, catalog, backend).tasks[0]
    request = next(request for request in prepared.requests if request.id == f"{task}/{sample}")
    prompt = request.prompt
    assert shown == (prompt.messages[-1].content if prompt.chat else prompt.text)


def test_the_documentation_shows_every_protocol() -> None:
    assert {protocol for _, protocol, *_ in RENDERED} == {"letter", "cloze", "chat", "paper", "paper-direct"}
