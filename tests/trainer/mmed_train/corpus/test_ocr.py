"""Tesseract as a program that is there, not there, without a language's data, too slow or broken."""

from __future__ import annotations

import pickle
import stat
from pathlib import Path

import pytest

from mmed_train.corpus.ocr import Picture, Tesseract, code, install_line, lines_of_tsv
from mmedeval.errors import DataError, UnknownNameError, UsageError

PICTURE = Picture(width=3, height=2, dpi=300, pixels=bytes(6))
HEAD = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext"


def row(block: int, line: int, word: int, text: str, *, left: int = 0, top: int = 0, sure: float = 96.0) -> str:
    return f"5\t1\t{block}\t1\t{line}\t{word}\t{left}\t{top}\t{20 * len(text)}\t40\t{sure}\t{text}"


def program(folder: Path, body: str, *, languages: str = "eng jpn osd") -> str:
    """A stand-in for Tesseract, as its command line is."""
    path = folder / "tesseract"
    listed = "\\n".join(["List of available languages (3):", *languages.split()])
    path.write_text(
        f"#!/bin/sh\nif [ \"$1\" = --list-langs ]; then printf '{listed}\\n'; exit 0; fi\n"
        f"if [ \"$1\" = --version ]; then echo 'tesseract 5.3.0'; exit 0; fi\n{body}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_it_gets_the_picture_the_language_and_one_thread(tmp_path: Path) -> None:
    (tmp_path / "answer").write_text("\n".join([HEAD, row(1, 1, 1, "Heart"), row(1, 1, 2, "failure", left=120)]))
    body = f'echo "$@" $OMP_THREAD_LIMIT > {tmp_path}/called; cat > {tmp_path}/picture; cat {tmp_path}/answer'
    engine = Tesseract(["en", "ja"], command=program(tmp_path, body))
    (line,) = engine.read(PICTURE, "ja")
    assert (tmp_path / "called").read_text() == "stdin stdout -l jpn --dpi 300 tsv 1\n"
    assert (tmp_path / "picture").read_bytes() == b"P5 3 2 255\n" + bytes(6)
    assert (line.text, line.left, line.right, line.top, line.bottom, line.block) == ("Heart failure", 0, 260, 0, 40, 1)
    assert engine.version() == "tesseract 5.3.0"
    assert pickle.loads(pickle.dumps(engine)).languages == ("en", "ja")  # noqa: S301  # made on the spot


def test_its_absence_is_a_sentence_with_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"^there is no Tesseract here, .*; run: apt-get install tesseract-ocr tesseract-ocr-chi-sim$"
    ):
        Tesseract(["zh"], command=str(tmp_path / "none"))


def test_a_missing_language_is_a_sentence_with_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"not its data for fr, ru; run: apt-get install tesseract-ocr tesseract-ocr-fra tesseract-ocr-rus$"
    ):
        Tesseract(["ru", "en", "fr"], command=program(tmp_path, ""))


def test_a_program_that_fails_is_an_error_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Tesseract stopped with code 3: no such picture"):
        Tesseract(["en"], command=program(tmp_path, "cat > /dev/null; echo 'no such picture' >&2; exit 3")).read(PICTURE, "en")


def test_a_program_that_does_not_end_is_ended(tmp_path: Path) -> None:
    engine = Tesseract(["en"], command=program(tmp_path, "exec sleep 60"))
    engine.seconds = 0.2
    with pytest.raises(DataError, match=r"Tesseract took longer than 0\.2 seconds"):
        engine.read(PICTURE, "en")


def test_a_program_that_cannot_run_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "tesseract"
    path.write_bytes(b"\x7fELF, but no more")
    path.chmod(0o755)
    with pytest.raises(UsageError, match="Tesseract does not run"):
        Tesseract(["en"], command=str(path))


def test_the_languages_are_the_six() -> None:
    assert [code(language) for language in ("en", "zh", "ja", "fr", "ru", "es")] == ["eng", "chi_sim", "jpn", "fra", "rus", "spa"]
    assert install_line(["es", "zh"]) == "apt-get install tesseract-ocr tesseract-ocr-spa tesseract-ocr-chi-sim"
    with pytest.raises(UnknownNameError, match="unknown language 'de'"):
        code("de")


class TestLines:
    def test_are_in_the_order_of_the_blocks(self) -> None:
        table = [HEAD, row(2, 1, 1, "c"), row(1, 2, 1, "b"), row(1, 1, 1, "a")]
        assert [line.text for line in lines_of_tsv("\n".join(table))] == ["a", "b", "c"]

    def test_of_han_and_kana_have_no_spaces(self) -> None:
        words = ["心", "不", "全", ",", "CT", "検", "査", "(", "2", "回", ")"]
        table = [HEAD, *(row(1, 1, number, word) for number, word in enumerate(words, 1))]
        assert [line.text for line in lines_of_tsv("\n".join(table))] == ["心不全, CT 検査(2 回)"]

    def test_that_it_is_not_sure_of_are_left_out(self) -> None:
        table = [HEAD, row(1, 1, 1, "~|", sure=12), row(1, 2, 1, "text"), row(2, 1, 1, " ", sure=-1)]
        assert [line.text for line in lines_of_tsv("\n".join(table))] == ["text"]

    def test_of_nothing_are_none(self) -> None:
        assert lines_of_tsv("") == lines_of_tsv(HEAD) == []
