"""What the steps of a corpus do: a task takes its share, writes its own files, and returns what it counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from mmed_train.corpus.config import LANGUAGES, STEPS, Corpus, Source
from mmed_train.corpus.decontaminate import TestItems
from mmed_train.corpus.dedup import MinHash, choose, duplicates, pair, sign
from mmed_train.corpus.documents import (
    BROKEN,
    EXCERPT,
    Document,
    Lines,
    Unit,
    document_of,
    files,
    keep_stdin,
    new_lines,
    read_documents,
    read_unit,
    stdin_file,
    units,
)
from mmed_train.corpus.keywords import PAPER, Keywords, Rule, lexicon
from mmed_train.corpus.language import identify
from mmed_train.corpus.mixing import Mix, Mixture
from mmed_train.corpus.ocr import Ocr, Tesseract
from mmed_train.corpus.quality import reasons as quality_reasons
from mmed_train.corpus.run import (
    SCRATCH,
    Counts,
    ExecutorName,
    Phase,
    Step,
    held,
    raw_digests,
    read_json,
    run_step,
    sentences,
    versions,
    write_json,
)
from mmed_train.corpus.shards import SUFFIX, Kind, open_shards
from mmed_train.corpus.tokenizing import TextEncoder, load_encoder, write_shard
from mmedeval import DataError, Sample, TaskOptions, UsageError, digest
from mmedeval.catalog import Catalog
from mmedeval.host import make_host

if TYPE_CHECKING:
    from mmed_train.corpus.pdf import PdfProcess

DOCUMENTS, REJECTED, UNITS = "documents", "rejected", "units.json"
T = TypeVar("T")


class Output:
    """The files of one task: documents that go on, and those that do not, with the reason. Counts both by source and language."""

    def __init__(self, kept: Lines, rejected: Lines) -> None:
        self.kept, self.rejected = kept, rejected
        self.counts: dict[str, dict[str, Any]] = {}
        self.warnings: list[str] = []

    def keep(self, document: Document) -> None:
        self.kept.add(asdict(document))
        counts = self._counts(document.source, document.language)
        counts["documents"] += 1
        counts["characters"] += len(document.text)
        # Under n: documents of 2 ** (n - 1) up to 2 ** n - 1 characters.
        counts["lengths"][str(len(document.text).bit_length())] += 1

    def reject(self, document: Document, reason: str, detail: str = "") -> None:
        self._counts(document.source, document.language)["rejected"][reason] += 1
        told = {"id": document.id, "source": document.source, "language": document.language, "reason": reason}
        self.rejected.add({**told, "detail": detail, "text": document.text[:EXCERPT]})

    def unreadable(self, source: Source, where: str, reason: str, detail: str) -> None:
        """Something that is no document: a record, or what a file holds from some place on."""
        counts = self._counts(source.name, source.language)
        if reason == BROKEN:
            counts["broken"] += 1
            self.warnings.append(detail)
        else:
            counts["rejected"][reason] += 1
        told = {"id": f"{source.name}/{where}", "source": source.name, "language": source.language, "reason": reason}
        self.rejected.add({**told, "detail": detail[: 4 * EXCERPT], "text": ""})

    def _counts(self, source: str, language: str) -> dict[str, Any]:
        new = {"documents": 0, "characters": 0, "broken": 0, "lengths": Counter[str](), "rejected": Counter[str]()}
        counts: dict[str, Any] = self.counts.setdefault(source, {}).setdefault(language, new)
        return counts

    def all_counts(self) -> Counts:
        return {"sources": self.counts, "warnings": self.warnings}


def _one_by_one(given: Iterable[T], folder: Path, rank: int, decide: Callable[[T, Output], None]) -> Counts:
    name = f"{rank:05d}.jsonl.zst"
    with new_lines(folder / DOCUMENTS / name) as kept, new_lines(folder / REJECTED / name) as rejected:
        output = Output(kept, rejected)
        for each in given:
            decide(each, output)
    return output.all_counts()


def documents_of(folder: Path, rank: int) -> Iterator[Document]:
    """What a task of a step wrote."""
    return read_documents(folder / DOCUMENTS / f"{rank:05d}.jsonl.zst")


# --- extract ---


def extract_step(corpus: Corpus) -> Step:
    # Also so that an engine that is not there is told before any work.
    engine = _ocr(corpus)
    settings = {
        "tasks": corpus.tasks,
        "sources": [
            {name: getattr(source, name) for name in ("name", "language", "format", "text", "id", "subset", "split", "revision")}
            for source in corpus.sources
        ],
        "ocr": None if engine is None else engine.version(),
    }
    packages = {"pdf": "pypdfium2", "html": "lxml", "parquet": "pyarrow", "hub": "datasets"}
    used = sorted({packages[source.format] for source in corpus.sources if source.format in packages})
    phases = (
        Phase(name="list", work=_list_units, tasks=1),
        Phase(name="", work=_extract, tasks=corpus.tasks, packages=("zstandard", *used)),
    )
    return Step(phases=phases, settings=settings, inputs=lambda: _raw(corpus))


def _raw(corpus: Corpus) -> dict[str, Any]:
    """Digests of the files that documents come from; a dataset on the hub is known by its name."""
    found: dict[str, Any] = {source.name: source.path for source in corpus.sources if source.format == "hub"}
    read = [
        (source, path)
        for source in corpus.sources
        if source.format != "hub"
        for path in ([stdin_file(corpus, source)] if source.path == "-" else files(corpus, source))
    ]
    for (source, path), sha256 in zip(read, raw_digests(corpus, [path for _, path in read]), strict=True):
        found.setdefault(source.name, {})[os.path.relpath(path, corpus.folder)] = sha256
    return found


def _list_units(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> Counts:
    """Once for all tasks: files that come or grow while they work change nothing."""
    found = [unit for source in corpus.sources for unit in units(corpus, source)]
    write_json(folder / UNITS, {"units": [{**vars(unit), "source": unit.source.name} for unit in found]})
    return {}


def _extract(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> Counts:
    sources = {source.name: source for source in corpus.sources}
    listed = read_json(folder / UNITS)["units"]
    mine = [Unit(**{**each, "source": sources[each["source"]]}) for each in listed[rank :: corpus.tasks]]
    from mmed_train.corpus.pdf import PdfProcess

    ocr = _ocr(corpus)
    with PdfProcess() as process:
        return _one_by_one(mine, folder, rank, lambda unit, output: _extract_unit(unit, ocr, process, output))


def _ocr(corpus: Corpus) -> Tesseract | None:
    languages = {source.language for source in corpus.sources if source.format == "pdf"}
    return Tesseract(languages) if corpus.extract.ocr and languages else None


def _extract_unit(unit: Unit, ocr: Ocr | None, process: PdfProcess, output: Output) -> None:
    source = unit.source

    def reject(where: str, reason: str, detail: str) -> None:
        output.unreadable(source, where, reason, detail)

    if source.format in ("pdf", "html"):
        from mmed_train.corpus.extract import extract_html, extract_pdf

        path = Path(unit.path)
        try:
            if source.format == "pdf":
                found = extract_pdf(path, source.language, ocr=ocr, process=process)
            else:
                found = extract_html(path, source.language)
        except DataError as error:
            reject(unit.name, BROKEN, str(error))
            return
        output.warnings += [f"{path}: {warning}" for warning in found.warnings]
        _take(unit, "0", {source.text: found.text}, output)
        return
    for place, record in read_unit(unit, reject):
        _take(unit, place, record, output)


def _take(unit: Unit, place: str, record: Mapping[str, Any], output: Output) -> None:
    document = document_of(unit, place, record)
    if isinstance(document, str):
        output.unreadable(unit.source, f"{unit.name}:{place}", document, str(record)[:EXCERPT])
    else:
        output.keep(document)


# --- filter ---


def filter_step(corpus: Corpus) -> Step:
    settings = {
        "rules": {source.name: list(source.rules) for source in corpus.sources},
        "hits": dict(corpus.filter.hits),
        "share": dict(corpus.filter.share),
        "lexicon": digest([lexicon(language) for language in LANGUAGES]),
    }
    phase = Phase(name="", work=_filter, tasks=corpus.tasks, packages=("pyahocorasick", "py3langid", "zstandard"))
    return Step(phases=(phase,), settings=settings)


def _filter(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> Counts:
    rules = {source.name: source.rules for source in corpus.sources}
    keywords: dict[str, Keywords] = {}

    def medical(document: Document) -> bool:
        language = document.language
        if language not in keywords:
            rule = PAPER[language]
            rule = Rule(
                distinct=corpus.filter.hits.get(language, rule.distinct), share=corpus.filter.share.get(language, rule.share)
            )
            keywords[language] = Keywords(language, rule=rule)
        return keywords[language].medical(document.text)

    def decide(document: Document, output: Output) -> None:
        wanted = rules[document.source]
        if "language" in wanted and (found := identify(document.text)) not in (document.language, None):
            output.reject(document, "another language", str(found))
        elif "quality" in wanted and (reasons := quality_reasons(document.text, document.language)):
            output.reject(document, f"quality: {reasons[0]}", ", ".join(reasons))
        elif "keywords" in wanted and not medical(document):
            output.reject(document, "not medical")
        else:
            output.keep(document)

    return _one_by_one(documents_of(before[-1], rank), folder, rank, decide)


# --- dedup ---


def dedup_step(corpus: Corpus) -> Step:
    how = _minhash(corpus)
    phases = (
        Phase(name="sign", work=_sign, tasks=corpus.tasks, packages=("numpy",)),
        Phase(name="pair", work=_pair, tasks=how.passes),
        Phase(name="choose", work=_choose, tasks=1),
        Phase(name="drop", work=_drop, tasks=corpus.tasks, packages=("zstandard",)),
    )
    return Step(phases=phases, settings=asdict(how))


def _minhash(corpus: Corpus) -> MinHash:
    return MinHash(seed=corpus.seed) if corpus.dedup.near else MinHash(bands=0, seed=corpus.seed)


def _sign(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> Counts:
    texts = (document.text for document in documents_of(before[-1], rank))
    sign(texts, folder / SCRATCH, rank, _minhash(corpus))
    return {}


def _pair(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> Counts:
    return {"pairs": pair(folder / SCRATCH, rank, _minhash(corpus))}


def _choose(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> Counts:
    choose(folder / SCRATCH, _minhash(corpus))
    return {}


def _drop(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> Counts:
    gone = duplicates(folder / SCRATCH, rank)
    following = next(gone, None)

    def decide(each: tuple[int, Document], output: Output) -> None:
        nonlocal following
        place, document = each
        if following is None or place < following.place:
            output.keep(document)
        else:
            task, kept = following.kept
            output.reject(document, f"{following.kind} duplicate", f"of document {kept} of task {task}, which stays")
            following = next(gone, None)

    return _one_by_one(enumerate(documents_of(before[-1], rank)), folder, rank, decide)


# --- decontaminate ---


def decontaminate_step(corpus: Corpus) -> Step:
    def inputs() -> dict[str, Any]:
        samples = _test_samples(corpus.decontaminate.tasks, str(_data_dir(corpus) or ""))
        items = digest([[name, [[s.question, dict(s.options)] for s in found]] for name, found in samples.items()])
        return {"test items": items}

    settings = {"tasks": list(corpus.decontaminate.tasks)}
    phase = Phase(name="", work=_decontaminate, tasks=corpus.tasks, packages=("zstandard",))
    return Step(phases=(phase,), settings=settings, inputs=inputs)


def _data_dir(corpus: Corpus) -> Path | None:
    return corpus.inside(corpus.decontaminate.data_dir) if corpus.decontaminate.data_dir else None


@cache
def _test_samples(tasks: tuple[str, ...], data_dir: str) -> dict[str, list[Sample]]:
    options = TaskOptions(data_dir=Path(data_dir)) if data_dir else TaskOptions()
    loaded = [spec.load(options) for spec in Catalog(make_host()).select_tasks(tasks)]
    return {task.name: list(task.samples("test")) for task in loaded}


@cache
def _test_items(tasks: tuple[str, ...], data_dir: str) -> TestItems:
    """Once per process: a worker does many tasks."""
    return TestItems(_test_samples(tasks, data_dir))


def _decontaminate(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> Counts:
    items = _test_items(corpus.decontaminate.tasks, str(_data_dir(corpus) or ""))

    def decide(document: Document, output: Output) -> None:
        hits = items.hits(document.text)
        if not hits:
            output.keep(document)
            return
        told = (f"{hit.task}/{hit.item_id} ({hit.kind}, {hit.share:.0%}, at {hit.where[0]})" for hit in hits)
        output.reject(document, f"holds test items of {hits[0].task}", "; ".join(told))

    return _one_by_one(documents_of(before[-1], rank), folder, rank, decide)


# --- tokenize ---

SHARDS = "shards"


def tokenize_step(corpus: Corpus) -> Step:
    told = corpus.tokenize
    settings = {"tokenizer": told.tokenizer, "revision": told.revision, "bos": told.bos, "eos": told.eos}

    def inputs() -> dict[str, Any]:
        return asdict(_encoder(corpus).vocabulary)

    phase = Phase(name="", work=_tokenize, tasks=corpus.tasks, packages=("tokenizers", "transformers"))
    return Step(phases=(phase,), settings=settings, inputs=inputs)


def _encoder(corpus: Corpus) -> TextEncoder:
    told = corpus.tokenize
    folder = corpus.inside(told.tokenizer)
    return _loaded(str(folder) if folder.is_dir() else told.tokenizer, told.revision, told.bos, told.eos)


@cache
def _loaded(tokenizer: str, revision: str, bos: bool, eos: bool) -> TextEncoder:
    """Once per process."""
    return load_encoder(tokenizer, revision=revision or None, bos=bos, eos=eos)


def _tokenize(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> Counts:
    kinds = ((each.text, Kind(source=each.source, language=each.language)) for each in documents_of(before[-1], rank))
    file = folder / SHARDS / f"{rank:05d}{SUFFIX}"
    # All sources, so that one of which nothing is left has no part in a mix, and is not unknown to it.
    header, empty = write_shard(kinds, _encoder(corpus), file, kinds=map(_kind, corpus.sources), replace=True)
    counts: dict[str, Any] = {}
    for each in header.counts:
        rejected = {"no token": empty[each.kind]} if empty[each.kind] else {}
        told = {"documents": each.documents, "tokens": each.tokens, "rejected": rejected}
        counts.setdefault(each.kind.source, {})[each.kind.language] = told
    return {"sources": counts}


def _kind(source: Source) -> Kind:
    return Kind(source=source.name, language=source.language)


# --- mix ---


def mix_step(corpus: Corpus) -> Step:
    mix = mix_of(corpus)
    settings = {"window": corpus.mix.window, "seed": corpus.seed, **asdict(mix), "most_epochs": str(mix.most_epochs)}
    phase = Phase(name="", work=_count_mix, tasks=1)
    return Step(phases=(phase,), settings=settings)


def mix_of(corpus: Corpus) -> Mix:
    """How an epoch of the corpus is made up."""
    told = corpus.mix
    try:
        return Mix(
            weights=told.weights,
            temperature=told.temperature,
            epochs={source.name: source.epochs for source in corpus.sources if source.epochs != 1.0},
            tokens=told.tokens,
            caps=told.caps,
            most_epochs=told.most_epochs,
        )
    except UsageError as error:
        raise DataError(f"{corpus.file}: [mix] {error}") from error


def _count_mix(corpus: Corpus, rank: int, folder: Path, before: Sequence[Path]) -> Counts:
    """What the first epoch takes. The windows themselves are read out of the shards: there is nothing to write."""
    space = open_shards([before[-1] / SHARDS])
    for shard in space.shards:
        shard.verify()
    tokens = {kind: each.tokens for kind, each in space.counts.items()}
    mixture = Mixture(tokens, mix_of(corpus), window=corpus.mix.window, seed=corpus.seed)
    found: dict[str, Any] = {}
    for kind, realised in mixture.realised(0).items():
        found.setdefault(kind.source, {})[kind.language] = asdict(realised)
    empty = [kind for kind, count in tokens.items() if not count]
    warnings = [f"nothing is left of {kind.source} ({kind.language}); it has no part in the mix" for kind in empty]
    return {"windows": len(mixture), "sources": found, "warnings": warnings}


# --- all ---


def run_steps(
    corpus: Corpus,
    names: Sequence[str],
    *,
    stdin: IO[bytes],
    executor: ExecutorName = "local",
    workers: int | None = None,
    tell: Callable[[str], None],
) -> None:
    """Does what is left of some steps. Raises what would stop one of them before the first begins."""
    for name in names:
        if name not in corpus.steps:
            raise UsageError(f"{name} is not among the steps of {corpus.file}")
    steps = {name: step(corpus) for name, step in zip(STEPS, MAKERS, strict=True) if name in names}
    check(corpus, steps)
    if "extract" in names:
        _keep_stdin(corpus, stdin, tell)
    for name, step in steps.items():
        counts = run_step(corpus, name, step, executor=executor, workers=workers, tell=tell)["counts"]
        warnings = list(counts.get("warnings", ()))
        if name == "extract":
            out = {source: sum(each["documents"] for each in found.values()) for source, found in counts["sources"].items()}
            warnings += [f"no document came out of {each.name}" for each in corpus.sources if not out.get(each.name)]
        for warning in warnings:
            tell(f"warning: {warning}")


def _keep_stdin(corpus: Corpus, stdin: IO[bytes], tell: Callable[[str], None]) -> None:
    for source in corpus.sources:
        if source.path == "-":
            file = stdin_file(corpus, source)
            with sentences(file), held(corpus.output):
                if not stdin.isatty():
                    again = f" again, to compare it with {file}" if file.exists() else ""
                    tell(f"{source.name}: reading standard input{again}")
                keep_stdin(file, stdin)


def check(corpus: Corpus, steps: Mapping[str, Step]) -> None:
    """Raises what would stop a step later: packages, sources, test items, a tokenizer or an OCR engine that are not there."""
    for step in steps.values():
        versions(step)
    if "extract" in steps:
        for source in corpus.sources:
            if source.format != "hub" and source.path != "-":
                files(corpus, source)
    if "decontaminate" in steps:
        _test_samples(corpus.decontaminate.tasks, str(_data_dir(corpus) or ""))
    if "tokenize" in steps:
        _encoder(corpus)


MAKERS: Sequence[Callable[[Corpus], Step]] = (extract_step, filter_step, dedup_step, decontaminate_step, tokenize_step, mix_step)
"""In the order of `STEPS`."""
