"""What a corpus is described by, and what is said of a description that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmed_train.corpus.config import read_corpus
from mmedeval import DataError

GOOD = """
[corpus]
output = "out"
tasks = 3

[[source]]
language = "en"
path = "texts/*.jsonl"

[[source]]
name = "wards"
language = "ja"
path = "pages"
format = "html"
rules = ["language"]
epochs = 2

[filter]
hits = { en = 3 }

[filter.share]
ja = 0.1

[tokenize]
tokenizer = "tok"

[mix]
weights = { en = 1, ja = 2 }
"""


def read(folder: Path, text: str) -> object:
    (folder / "corpus.toml").write_text(text, encoding="utf-8")
    return read_corpus(folder / "corpus.toml")


def test_a_description_is_read_with_its_defaults(tmp_path: Path) -> None:
    (tmp_path / "corpus.toml").write_text(GOOD, encoding="utf-8")
    corpus = read_corpus(tmp_path / "corpus.toml")
    assert corpus.output == tmp_path / "out"
    assert (corpus.tasks, corpus.seed) == (3, 0)
    first, second = corpus.sources
    assert (first.name, first.format, first.rules) == ("texts-jsonl", "jsonl", ("language", "keywords", "quality"))
    assert (second.name, second.format, second.rules, second.epochs) == ("wards", "html", ("language",), 2.0)
    assert corpus.filter.hits == {"en": 3}
    assert corpus.filter.share == {"ja": 0.1}
    assert corpus.mix.window == 2048


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("[filter]", "[filtre]", 18, "unknown section 'filtre'; did you mean filter?"),
        ("tasks = 3", "task = 3", 4, "unknown setting 'task'; did you mean tasks?"),
        ("tasks = 3", 'tasks = "3"', 4, "tasks = '3' is no whole number"),
        ("tasks = 3", "tasks = true", 4, "tasks = True is no whole number"),
        ("tasks = 3", "tasks = 0", 4, "tasks = 0 is below 1"),
        ("tasks = 3", 'steps = ["extract", "sort"]', 4, "unknown step 'sort'"),
        ('language = "ja"', 'language = "jp"', 12, "unknown language 'jp'; did you mean ja?"),
        ("epochs = 2", "epochs = -2", 16, "epochs = -2 is below 0"),
        ('rules = ["language"]', 'rules = ["languages"]', 15, "unknown rule 'languages'; did you mean language?"),
        ('rules = ["language"]', 'rules = "language"', 15, "rules = 'language' is no list of strings"),
        ('format = "html"', "", 10, "its path tells no format"),
        ('format = "html"', 'format = "htm"', 14, "format 'htm' is none of jsonl"),
        ('name = "wards"', 'name = "a/b"', 11, "may hold letters, digits"),
        ('name = "wards"', 'name = "texts-jsonl"', 11, "is given twice"),
        ("hits = { en = 3 }", "hits = { it = 3 }", 19, "unknown language 'it'"),
        ("hits = { en = 3 }", "hits = 3", 19, "hits = 3 is no table of numbers by language"),
        ("ja = 0.1", "ja = -0.1", 21, "share.ja = -0.1 is below 0"),
        ("ja = 2 }", "jp = 2 }", 28, "unknown language 'jp'; did you mean ja?"),
        ("ja = 2 }", "fr = 2 }", 28, "unknown language of a source 'fr'; known: en, ja"),
        (", ja = 2 }", " }", 28, "weights: none for ja; 0 leaves a language out"),
        ("ja = 2 }", "ja = -2 }", 28, "weights.ja = -2 is below 0"),
        ("ja = 2 }", "ja = 2 }\ncaps = { ru = 1 }", 29, "unknown language of a source 'ru'; known: en, ja"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    assert old in GOOD
    with pytest.raises(DataError) as caught:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert str(caught.value).startswith(f"{tmp_path / 'corpus.toml'}:{line}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('output = "out"', "", "names no output"),
        ("[tokenize]", "[dedup]", "unknown setting 'tokenizer'"),
        ('tokenizer = "tok"', "", "names no tokenizer"),
        ("[corpus]", "[corpus", "cannot be read: "),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(tmp_path, GOOD.replace(old, new, 1))


def test_a_description_without_sources_or_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names no source"):
        read(tmp_path, '[corpus]\noutput = "out"\n')
    with pytest.raises(DataError, match=r"nowhere.toml does not exist; see docs/corpus.md"):
        read_corpus(tmp_path / "nowhere.toml")
