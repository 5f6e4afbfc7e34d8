"""Runs as event files of TensorBoard."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from mmedeval import RunPlan, RunRecord, Tracker
from mmedeval_trackers.contents import figures, parameters, record_text, run_name


class TensorBoard(Tracker):
    """A folder per run: figures and progress as scalars, what was chosen as text, and the record beside them."""

    def __init__(self, where: str) -> None:
        self.root = Path(where or "runs/tensorboard")
        self._writer: EventFileWriter | None = None
        self.folder = self.root

    def started(self, plan: RunPlan) -> None:
        name = re.sub(r"[^\w.+-]+", "-", run_name(plan))[:60]
        for number in range(1000):
            self.folder = self.root / f"{name}_{time.strftime('%Y%m%d-%H%M%S')}{f'_{number}' if number else ''}"
            try:
                self.folder.mkdir(parents=True)
                break
            except FileExistsError:
                continue
        self._writer = EventFileWriter(str(self.folder))
        self._text("plan", parameters(plan))

    def progress(self, counts: Mapping[str, int]) -> None:
        self._scalars({f"progress/{name}": float(count) for name, count in counts.items()}, counts["answered"])

    def finished(self, record: RunRecord) -> None:
        self._scalars(figures(record), 0)
        used = {"protocol": record.data["protocol"]["used"], "fingerprint": record.data["fingerprint"]}
        self._text("run", used)
        (self.folder / "record.json").write_text(record_text(record), encoding="utf-8")

    def close(self, *, whole: bool) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        self._add([Summary.Value(tag=name, simple_value=value) for name, value in values.items()], step)

    def _text(self, tag: str, values: Mapping[str, str]) -> None:
        """As JSON in a code block: TensorBoard shows text as Markdown, in which a path or a name would be markup."""
        text = "".join(f"    {line}\n" for line in json.dumps(dict(values), indent=2).splitlines())
        plugin = SummaryMetadata.PluginData(plugin_name="text")
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()], tensor_shape=shape)
        self._add([Summary.Value(tag=f"{tag}/text_summary", metadata=SummaryMetadata(plugin_data=plugin), tensor=tensor)], 0)

    def _add(self, values: list[Summary.Value], step: int) -> None:
        assert self._writer is not None
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
