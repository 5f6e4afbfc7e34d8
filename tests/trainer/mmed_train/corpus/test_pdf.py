"""Text out of PDF files that the tests make: six languages, pages without text, and files that mean harm."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed")

from mmed_train.corpus.extract import Extracted, PdfProcess, Picture, Tesseract, extract_pdf
from mmed_train.corpus.pages import Piece
from mmedeval.errors import BackendError, DataError, MissingPackageError, UnknownNameError, UsageError

# x, y from the top, text, size
Line = tuple[float, float, str, float]
HIGH = 800
TEXTS = {
    "en": [
        "Heart failure is a syndrome in which the heart does not pump",
        "enough blood for the needs of the body, at rest and at work.",
    ],
    "fr": [
        "L’insuffisance cardiaque est un syndrome où le cœur ne pompe",
        "pas assez de sang pour répondre à tous les besoins du corps.",
    ],
    "es": [
        "La insuficiencia cardíaca es un síndrome en el que el corazón",
        "no bombea la sangre que el organismo necesita; ¿qué síntomas?",
    ],
    "ru": [
        "Сердечная недостаточность — это синдром, при котором сердце",
        "не обеспечивает потребностей организма в крови, даже в покое.",
    ],
    "zh": [
        "心力衰竭是一种临床综合征，心脏不能泵出足够的血液来满足机体的",
        "需要，常见症状为呼吸困难、乏力和水肿，治疗以药物为主。",
    ],
    "ja": [
        "心不全とは、心臓の機能が低下し、体に必要な血液を十分に送り出せ",
        "なくなった状態であり、息切れやむくみなどの症状がみられる。",
    ],
}


def lines(texts: Sequence[str], *, left: float = 50, top: float = 100, size: float = 10) -> list[Line]:
    return [(left, top + 14 * number, text, size) for number, text in enumerate(texts)]


def to_pdf(
    pages: Sequence[Sequence[Line]],
    *,
    meaning: Callable[[str], str] = lambda char: char,
    turn: int = 0,
    aside: str = "",
    scans: Sequence[int] = (),
) -> bytes:
    """A file with the lines as text, in a font that is named but not there; the pages at `scans` have a picture as well.

    `meaning` is what the file says that a character means. `turn` turns the text and the page
    against each other, in degrees. `aside` runs up every page's margin.
    """
    chars = sorted({char for page in pages for line in page for char in line[2]} | set(aside))
    codes = {char: number for number, char in enumerate(chars, 1)}
    objects: list[bytes] = []

    def add(body: bytes) -> int:
        objects.append(body)
        return len(objects)

    def stream(data: bytes, entries: bytes = b"") -> bytes:
        packed = zlib.compress(data)
        return b"<</Length %d/Filter/FlateDecode%s>>stream\n%s\nendstream" % (len(packed), entries, packed)

    add(b"<</Type/Catalog/Pages 2 0 R>>")
    add(b"")
    mapped = "".join(
        f"1 beginbfchar <{codes[char]:04x}> <{meaning(char).encode('utf-16-be').hex()}> endbfchar\n" for char in chars
    )
    to_unicode = add(stream(f"begincmap 1 begincodespacerange <0000> <ffff> endcodespacerange\n{mapped}endcmap".encode()))
    widths = " ".join(f"{codes[char]} [{1000 if char > 'ⅿ' else 500}]" for char in chars)
    described = add(
        b"<</Type/FontDescriptor/FontName/Any/Flags 4/FontBBox[0 -200 1000 900]/ItalicAngle 0/Ascent 900/Descent -200"
        b"/CapHeight 700/StemV 80>>"
    )
    inner = add(
        b"<</Type/Font/Subtype/CIDFontType2/BaseFont/Any/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>"
        b"/FontDescriptor %d 0 R/DW 500/W[%s]>>" % (described, widths.encode())
    )
    font = add(
        b"<</Type/Font/Subtype/Type0/BaseFont/Any/Encoding/Identity-H/DescendantFonts[%d 0 R]/ToUnicode %d 0 R>>"
        % (inner, to_unicode)
    )
    picture = add(stream(bytes(64), b"/Type/XObject/Subtype/Image/Width 8/Height 8/ColorSpace/DeviceGray/BitsPerComponent 8"))
    kids = []
    for number, page in enumerate(pages):
        drawn = "q 400 0 0 600 50 50 cm /P Do Q\n" if number in scans else ""
        for left, top, text, size in [*page, *([(20, 500, aside, 12)] if aside else [])]:
            shown = "".join(f"{codes[char]:04x}" for char in text)
            place = f"1 0 0 1 {left} {HIGH - top}" if not turn else f"0 1 -1 0 {top} {left}"
            if aside and text == aside:
                place = f"0 1 -1 0 {left} {HIGH - top}"
            drawn += f"BT /F {size} Tf {place} Tm <{shown}> Tj ET\n"
        content = add(stream(drawn.encode()))
        kids.append(
            add(
                b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 %d]/Rotate %d/Contents %d 0 R"
                b"/Resources<</Font<</F %d 0 R>>/XObject<</P %d 0 R>>>>>>" % (HIGH, turn, content, font, picture)
            )
        )
    objects[1] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(kids), b" ".join(b"%d 0 R" % kid for kid in kids))
    return assembled(objects)


def assembled(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """The file of these objects, of which the first is its root."""
    out, places = bytearray(b"%PDF-1.7\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + b"".join(b"%010d 00000 n \n" % place for place in places)
    return bytes(out) + b"trailer<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, start)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "book.pdf"
        path.write_bytes(data)
        return path

    return write


class Engine:
    """Reads the same lines on every page, and keeps the pictures."""

    def __init__(self, *found: str, error: str = "") -> None:
        self.found, self.error, self.pictures = found, error, list[Picture]()

    def read(self, picture: Picture, language: str) -> Sequence[Piece]:
        self.pictures.append(picture)
        if self.error:
            raise DataError(self.error)
        return [
            Piece(text=text, left=200, right=2000, top=400 + 60 * n, bottom=440 + 60 * n, size=40, block=1)
            for n, text in enumerate(self.found)
        ]


Write = Callable[[bytes], Path]
Extract = Callable[..., Extracted]


@pytest.fixture(scope="module")
def extract() -> Iterator[Extract]:
    """Reads all files of these tests in one process."""
    with PdfProcess() as process:
        yield partial(extract_pdf, process=process)


@pytest.mark.parametrize("language", TEXTS)
def test_the_text_of_six_languages_comes_out_as_it_was_written(extract: Extract, written: Write, language: str) -> None:
    texts = TEXTS[language]
    found = extract(written(to_pdf([lines(texts)])), language)
    assert found.text == ("" if language in ("zh", "ja") else " ").join(texts)
    assert (found.pages, found.ocr_pages, found.warnings) == (1, (), ())


def test_columns_heads_and_page_numbers(extract: Extract, written: Write) -> None:
    pages = []
    for n in range(4):
        left = lines([f"left {number} of page {'abcd'[n]} is a line of text" for number in range(6)])
        right = lines([f"right {number} of page {'abcd'[n]} is a line too" for number in range(6)], left=330)
        mixed = [line for pair in zip(left, right, strict=True) for line in pair]
        pages.append([(50, 40, f"{n + 1}  Internal Medicine", 8.0), *mixed, (290, 760, str(n + 1), 8.0)])
    text = extract(written(to_pdf(pages)), "en").text
    assert "Internal" not in text
    assert [part.split()[0] for part in text.replace("text ", "text\n").replace("too ", "too\n").split("\n") if part] == (
        ["left"] * 6 + ["right"] * 6
    ) * 4


def test_a_word_broken_by_a_hyphen_is_joined_over_a_page_break(extract: Extract, written: Write) -> None:
    pages = [lines(["the treatment of arterial hyper-"]), lines(["tension is with drugs and a diet"])]
    assert extract(written(to_pdf(pages)), "en").text == "the treatment of arterial hypertension is with drugs and a diet"


def test_ligatures_are_letters(extract: Extract, written: Write) -> None:
    found = extract(written(to_pdf([lines(["the eﬀect of ﬂuoroscopy is diﬃcult to ﬁnd"])])), "en")
    assert found.text == "the effect of fluoroscopy is difficult to find"


def test_bullets_out_of_a_font_of_symbols_are_bullets(extract: Extract, written: Write) -> None:
    data = to_pdf(
        [lines(["¤ fever that lasts for three days or more", "¤ cough"])], meaning=lambda char: "\uf0b7" if char == "¤" else char
    )
    assert extract(written(data), "en").text == "• fever that lasts for three days or more\n\n• cough"


def test_a_page_that_lies_on_its_side_reads_as_it_is_seen(extract: Extract, written: Write) -> None:
    assert extract(written(to_pdf([lines(TEXTS["en"])], turn=90)), "en").text == " ".join(TEXTS["en"])


def test_text_across_the_lines_is_left_out(extract: Extract, written: Write) -> None:
    found = extract(written(to_pdf([lines(TEXTS["en"])], aside="Downloaded on 1 May")), "en")
    assert found.text == " ".join(TEXTS["en"])


class TestPagesWithoutText:
    def test_are_read_by_the_engine_at_300_dots_per_inch(self, extract: Extract, written: Write) -> None:
        engine = Engine("This was read from the picture,", "which it shows to the engine.")
        found = extract(written(to_pdf([lines(TEXTS["en"]), []], scans=[1])), "en", ocr=engine)
        assert found.text.endswith("This was read from the picture, which it shows to the engine.")
        assert (found.ocr_pages, found.warnings) == ((2,), ())
        (picture,) = engine.pictures
        assert (picture.width, picture.height, picture.dpi) == (2500, 3334, 300)
        assert len(picture.pixels) == picture.width * picture.height
        assert set(picture.pixels) == {0, 255}

    def test_are_refused_without_an_engine_if_there_is_nothing_else(self, extract: Extract, written: Write) -> None:
        path = written(to_pdf([[], []], scans=[0, 1]))
        with pytest.raises(
            DataError, match=r"book\.pdf: page 1 has no text layer.*apt-get install tesseract-ocr tesseract-ocr-chi-sim$"
        ):
            extract(path, "zh")

    def test_are_named_without_an_engine(self, extract: Extract, written: Write) -> None:
        found = extract(written(to_pdf([[], lines(TEXTS["en"]), [], []], scans=[0, 2, 3])), "en")
        assert found.text == " ".join(TEXTS["en"])
        (warning,) = found.warnings
        assert warning.startswith("pages 1, 3 to 4 are without a text layer that could be read; ")
        assert warning.endswith("run: apt-get install tesseract-ocr tesseract-ocr-eng")

    @pytest.mark.parametrize("meaning", ["\ue001", "\ufffd"])
    def test_are_also_those_whose_characters_mean_nothing(self, extract: Extract, written: Write, meaning: str) -> None:
        path = written(to_pdf([lines(TEXTS["ru"])], meaning=lambda char: meaning))
        with pytest.raises(DataError, match="page 1 has no text layer"):
            extract(path, "ru")
        assert extract(path, "ru", ocr=Engine("Сердечная недостаточность")).text == "Сердечная недостаточность"

    def test_are_also_those_with_a_stamp_and_no_more(self, extract: Extract, written: Write) -> None:
        path = written(to_pdf([lines(["Library"])] * 3, scans=[0, 1, 2]))
        with pytest.raises(DataError, match="page 1 has no text layer"):
            extract(path, "en")
        assert extract(path, "en", ocr=Engine("What is in the picture")).text.startswith("What is in")

    def test_keep_the_little_that_they_have_if_the_engine_finds_nothing(self, extract: Extract, written: Write) -> None:
        path = written(to_pdf([lines(["Chapter 1"]), lines(TEXTS["en"])], scans=[0]))
        assert extract(path, "en", ocr=Engine()).text.startswith("Chapter 1")

    def test_of_which_the_engine_finds_nothing_either_are_an_error(self, extract: Extract, written: Write) -> None:
        with pytest.raises(DataError, match="page 1 has no text layer, nor has another, and OCR found no text; look at the file"):
            extract(written(to_pdf([[]], scans=[0])), "en", ocr=Engine())

    def test_are_not_those_that_are_empty(self, extract: Extract, written: Write) -> None:
        found = extract(written(to_pdf([lines(TEXTS["en"]), []])), "en")
        assert (found.pages, found.warnings) == (2, ())

    def test_are_left_out_if_the_engine_fails(self, extract: Extract, written: Write) -> None:
        path = written(to_pdf([lines(TEXTS["en"]), []], scans=[1]))
        found = extract(path, "en", ocr=Engine(error="it took too long"))
        assert found.warnings == ("page 2 was left out: it took too long",)

    def test_running_heads_of_scanned_pages_go_too(self, extract: Extract, written: Write) -> None:
        class Books(Engine):
            def read(self, picture: Picture, language: str) -> Sequence[Piece]:
                self.pictures.append(picture)
                name = "abcd"[len(self.pictures) - 1]
                texts = ["Internal Medicine", f"what {name} is about is told", f"in the lines of {name} below"]
                return [
                    Piece(text=text, left=200, right=2000, top=100 + 300 * n, bottom=140 + 300 * n, size=40, block=n)
                    for n, text in enumerate(texts)
                ]

        found = extract(written(to_pdf([[]] * 4, scans=range(4))), "en", ocr=Books())
        assert found.ocr_pages == (1, 2, 3, 4)
        assert "Internal" not in found.text
        assert "what d is about" in found.text


class TestHarm:
    def test_a_missing_file_is_named(self, extract: Extract, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"none\.pdf is not there"):
            extract(tmp_path / "none.pdf", "en")
        with pytest.raises(DataError, match="is not a file"):
            extract(tmp_path, "en")

    def test_an_unknown_language_is_refused(self, extract: Extract, written: Write) -> None:
        with pytest.raises(UnknownNameError, match="unknown language 'de'"):
            extract(written(to_pdf([lines(TEXTS["en"])])), "de")

    @pytest.mark.parametrize("data", [b"", b"%PDF-1.7\n", b"<html>", bytes(5000), b"%PDF-1.7\n" + bytes(range(256)) * 50])
    def test_what_is_no_pdf_file_is_refused(self, extract: Extract, written: Write, data: bytes) -> None:
        with pytest.raises(DataError, match=r"book\.pdf cannot be read as a PDF file"):
            extract(written(data), "en")

    def outcome(self, extract: Extract, path: Path, **limits: int) -> Extracted | DataError:
        try:
            return extract(path, "en", **limits)
        except DataError as error:
            return error

    def test_a_truncated_file_is_refused_or_gives_a_warning(self, extract: Extract, written: Write) -> None:
        whole = to_pdf([lines(TEXTS["en"])] * 3)
        for length in range(0, len(whole) - 8, 97):
            found = self.outcome(extract, written(whole[:length]))
            if isinstance(found, DataError):
                assert "book.pdf" in str(found)
            else:
                assert "the file ends early; pages may be missing" in found.warnings

    def test_any_byte_may_be_wrong(self, extract: Extract, written: Write) -> None:
        whole = to_pdf([lines(TEXTS["en"])] * 2)
        for place in range(0, len(whole), 61):
            data = bytearray(whole)
            data[place] ^= 0x55
            assert isinstance(self.outcome(extract, written(bytes(data))), Extracted | DataError)

    def test_an_encrypted_file_is_refused(self, extract: Extract, written: Write) -> None:
        encrypted = b"/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>/ID[<00><00>]" % (b"11" * 32, b"22" * 32)
        whole = to_pdf([lines(TEXTS["en"])])
        with pytest.raises(DataError, match=r"book\.pdf is encrypted; .*qpdf --decrypt"):
            extract(written(whole.replace(b"/Root 1 0 R", b"/Root 1 0 R" + encrypted)), "en")

    def test_no_more_than_so_many_pages_are_read(self, extract: Extract, written: Write) -> None:
        found = extract(
            written(to_pdf([lines([f"{name} is on a page of its own, here"]) for name in "abcd"])), "en", most_pages=2
        )
        assert found.pages == 4
        assert "b is on" in found.text
        assert "c is on" not in found.text
        assert found.warnings == ("of 4 pages only the first 2 were read",)

    def test_a_page_tree_that_promises_millions_ends(self, extract: Extract, written: Write) -> None:
        page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"
        data = assembled([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 2000000000/Kids[3 0 R]>>", page])
        found = self.outcome(extract, written(data), most_pages=50)
        assert "book.pdf" in str(found) if isinstance(found, DataError) else found.text == ""

    def test_no_more_than_so_many_characters_are_read(self, extract: Extract, written: Write) -> None:
        pages = [lines(["a line that is printed again and again"] * 40)] * 30
        found = extract(written(to_pdf(pages)), "en", most_characters=2_000)
        assert len(found.text) <= 2_100
        assert found.warnings == ("only the first 2000 characters were read, up to page 2",)

    def test_of_a_page_with_too_much_text_the_beginning_is_read(self, extract: Extract, written: Write) -> None:
        found = extract(written(swelling(100_000)), "en", most_characters=10_000)
        assert 5_000 < len(found.text) <= 10_000
        assert found.warnings == ("only the first 10000 characters were read, up to page 1",)

    @pytest.mark.parametrize("box", [b"0 0 1000000 1000000", b"0 0 10000000 10000000", b"0 0 1000000000 1", b"0 0 1 1000000000"])
    def test_no_picture_is_made_of_a_page_as_large_as_a_town(self, extract: Extract, written: Write, box: bytes) -> None:
        data = to_pdf([[], lines(TEXTS["en"])], scans=[0]).replace(b"/MediaBox[0 0 600 800]", b"/MediaBox[%s]" % box, 1)
        engine = Engine("never seen")
        found = extract(written(data), "en", ocr=engine)
        assert engine.pictures == []
        assert found.text == " ".join(TEXTS["en"])
        (warning,) = found.warnings
        assert re.fullmatch(r"page 1 was left out: [\d,]+ by [\d,]+ inches are too large for OCR", warning)

    def test_a_poster_is_read_at_fewer_dots_per_inch(self, extract: Extract, written: Write) -> None:
        data = to_pdf([[]], scans=[0]).replace(b"/MediaBox[0 0 600 800]", b"/MediaBox[0 0 6000 8000]")
        engine = Engine("Heart failure")
        assert extract(written(data), "en", ocr=engine).text == "Heart failure"
        (picture,) = engine.pictures
        assert picture.dpi == 65
        assert 38_000_000 < picture.width * picture.height <= 40_000_000


def swelling(times: int, pack: Callable[[bytes], bytes] = zlib.compress, about: bytes = b"/Filter/FlateDecode") -> bytes:
    """A small file of a page that is large when it is unpacked."""
    packed = pack(b"BT /F 10 Tf 50 700 Td " + b"(ab) Tj " * times + b"ET")
    page = (
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R"
        b"/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>"
    )
    content = b"<<%s/Length %d>>stream\n%s\nendstream" % (about, len(packed), packed)
    return assembled([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 1/Kids[3 0 R]>>", page, content])


def laughing() -> bytes:
    """Ten forms, each of which draws the next one ten times."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</XObject<</F 5 0 R>>>>>>"
    form = (
        b"<</Type/XObject/Subtype/Form/BBox[0 0 600 800]/Resources<</XObject<</F %d 0 R>>>>/Length 50>>stream\n"
        + b"/F Do" * 10
        + b"\nendstream"
    )
    forms = [form % (number + 1) for number in range(5, 15)]
    drawn = b"<</Length 5>>stream\n/F Do\nendstream"
    return assembled([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 1/Kids[3 0 R]>>", page, drawn, *forms])


def pid(process: PdfProcess) -> int:
    assert process._running is not None
    return process._running[0].pid


def is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def text_in_a_worker(path: Path) -> str:
    return extract_pdf(path, "en").text


def put_text(path: Path, results: multiprocessing.Queue[str]) -> None:
    results.put(text_in_a_worker(path))


class TestBounds:
    TOO_MUCH = r"book\.pdf is not read: it takes more than 300 MB of memory, or breaks PDFium \(Aborted\)$"

    @pytest.mark.parametrize(
        ("pack", "about"),
        [
            (zlib.compress, b"/Filter/FlateDecode"),
            (zlib.compress, b"/Filter/Fl"),
            (zlib.compress, b"/X/Image/Filter/FlateDecode"),
            (zlib.compress, b"/X(%s)/Filter/FlateDecode" % (b"-" * 2_000)),
            (lambda data: zlib.compress(zlib.compress(data)), b"/Filter[/FlateDecode/FlateDecode]"),
            (lambda data: zlib.compress(data).hex().encode(), b"/Filter[/ASCIIHexDecode/FlateDecode]"),
        ],
        ids=["plain", "short name", "picture", "long dictionary", "twice", "in hexadecimal"],
    )
    def test_a_small_file_that_swells_is_refused_however_it_is_packed(
        self, written: Write, pack: Callable[[bytes], bytes], about: bytes
    ) -> None:
        data = swelling(600_000, pack, about)
        assert len(data) < 50_000
        with PdfProcess(memory=300 << 20) as process, pytest.raises(DataError, match=self.TOO_MUCH):
            extract_pdf(written(data), "en", process=process)

    def test_a_file_that_takes_too_long_is_refused(self, written: Write) -> None:
        with PdfProcess(seconds=0.5) as process:
            with pytest.raises(DataError, match=r"book\.pdf is not read: it takes more than 0\.5 seconds of a processor$"):
                extract_pdf(written(laughing()), "en", process=process)
            assert extract_pdf(written(to_pdf([lines(TEXTS["en"])])), "en", process=process).text == " ".join(TEXTS["en"])

    def test_time_is_that_of_one_file(self, written: Write) -> None:
        path = written(to_pdf([lines(TEXTS["en"])] * 20))
        with PdfProcess(seconds=0.5) as process:
            texts = {extract_pdf(path, "en", process=process).text for _ in range(60)}
            spent = sum(os.times()[2:4])
            first = pid(process)
            assert extract_pdf(path, "en", process=process).text in texts
            assert pid(process) == first
        assert len(texts) == 1
        assert sum(os.times()[2:4]) - spent > 0.5, "the files took no longer together than one may"

    def test_the_files_after_one_that_is_refused_are_read_in_another_process(self, written: Write) -> None:
        good, texts = to_pdf([lines(TEXTS["en"])]), []
        with PdfProcess(memory=300 << 20) as process:
            texts.append(extract_pdf(written(good), "en", process=process).text)
            first = pid(process)
            with pytest.raises(DataError, match=self.TOO_MUCH):
                extract_pdf(written(swelling(600_000)), "en", process=process)
            texts.append(extract_pdf(written(good), "en", process=process).text)
            assert pid(process) != first
        assert texts == [" ".join(TEXTS["en"])] * 2

    def test_a_file_whose_process_was_worn_out_by_others_is_read_in_a_fresh_one(self, written: Write) -> None:
        path = written(to_pdf([lines(TEXTS["en"])]))
        with PdfProcess() as process:
            extract_pdf(path, "en", process=process)
            os.kill(pid(process), signal.SIGKILL)
            assert extract_pdf(path, "en", process=process).text == " ".join(TEXTS["en"])

    def test_a_process_that_is_killed_again_and_again_is_an_error_with_the_signal(self, written: Write) -> None:
        class Killer(Engine):
            def read(self, picture: Picture, language: str) -> Sequence[Piece]:
                os.kill(pid(process), signal.SIGKILL)
                return super().read(picture, language)

        engine = Killer("Heart failure")
        with PdfProcess() as process:
            extract_pdf(written(to_pdf([lines(TEXTS["en"])])), "en", process=process)
            with pytest.raises(DataError, match=r"is not read: .* \(Killed\)$"):
                extract_pdf(written(to_pdf([[]], scans=[0])), "en", ocr=engine, process=process)
        assert len(engine.pictures) == 2

    def test_an_engine_that_is_gone_ends_the_run_and_not_only_the_file(self, written: Write) -> None:
        class Gone(Engine):
            def read(self, picture: Picture, language: str) -> Sequence[Piece]:
                raise UsageError("Tesseract does not run")

        with PdfProcess() as process:
            with pytest.raises(UsageError, match="Tesseract does not run"):
                extract_pdf(written(to_pdf([[]], scans=[0])), "en", ocr=Gone(), process=process)
            assert extract_pdf(written(to_pdf([lines(TEXTS["en"])])), "en", process=process).text == " ".join(TEXTS["en"])

    def test_a_process_that_does_not_start_ends_the_run(
        self, written: Write, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        path = written(to_pdf([lines(TEXTS["en"])]))
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(BackendError, match=r"the process that reads PDF files did not start \(code 1\)"):
            extract_pdf(path, "en")
        monkeypatch.setitem(sys.modules, "pypdfium2", None)
        with pytest.raises(MissingPackageError, match="pypdfium2"):
            extract_pdf(path, "en")

    def test_no_process_stays_behind(self, written: Write) -> None:
        with PdfProcess() as process:
            extract_pdf(written(to_pdf([lines(TEXTS["en"])])), "en", process=process)
            number = pid(process)
        assert not is_alive(number)

    def test_the_process_ends_with_its_killed_parent(self, written: Write) -> None:
        path = written(to_pdf([lines(TEXTS["en"])]))
        code = (
            "import sys, time, pathlib; from mmed_train.corpus.pdf import PdfProcess, extract_pdf; process = PdfProcess()\n"
            "extract_pdf(pathlib.Path(sys.argv[1]), 'en', process=process); print(process._running[0].pid, flush=True)\n"
            "time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            number = int(parent.stdout.readline())
            assert is_alive(number)
            parent.kill()
        for _ in range(200):
            if not is_alive(number):
                break
            time.sleep(0.05)
        assert not is_alive(number)

    def test_workers_of_a_pool_have_one_each(self, written: Write) -> None:
        path = written(to_pdf([lines(TEXTS["en"])]))
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            assert [*pool.map(text_in_a_worker, [path] * 4)] == [" ".join(TEXTS["en"])] * 4

    def test_workers_that_may_have_no_children_of_multiprocessing_have_one_too(self, written: Write) -> None:
        path = written(to_pdf([lines(TEXTS["en"])]))
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        worker = context.Process(target=put_text, args=(path, results), daemon=True)
        worker.start()
        assert results.get(timeout=60) == " ".join(TEXTS["en"])
        worker.join()


@pytest.mark.parametrize("language", ["en", "ru"])
def test_tesseract_reads_a_page_that_is_a_picture(extract: Extract, tmp_path: Path, language: str) -> None:
    try:
        engine = Tesseract([language])
    except UsageError as error:
        pytest.skip(str(error))
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    figure = pyplot.figure(figsize=(8, 4), dpi=150)
    figure.text(0.05, 0.5, "\n".join(TEXTS[language]), fontsize=14)
    path = tmp_path / "scan.png"
    figure.savefig(path)
    pyplot.close(figure)
    pixels = (pyplot.imread(path)[:, :, 0] * 255).astype("uint8")
    high, wide = pixels.shape
    packed = zlib.compress(pixels.tobytes())
    drawn = b"q 576 0 0 288 0 0 cm /P Do Q"
    book = tmp_path / "book.pdf"
    book.write_bytes(
        assembled([
            b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 576 288]/Contents 4 0 R/Resources<</XObject<</P 5 0 R>>>>>>",
            b"<</Length %d>>stream\n%s\nendstream" % (len(drawn), drawn),
            b"<</Type/XObject/Subtype/Image/Width %d/Height %d/ColorSpace/DeviceGray/BitsPerComponent 8/Filter/FlateDecode"
            b"/Length %d>>stream\n%s\nendstream"
            % (wide, high, len(packed), packed),
        ])
    )  # fmt: skip
    found = extract(book, language, ocr=engine)
    assert found.ocr_pages == (1,)
    words, right = found.text.split(), " ".join(TEXTS[language]).split()
    assert sum(word in words for word in right) >= 0.9 * len(right)
