"""From pieces of text to paragraphs: reading order, furniture, hyphens, spaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from mmed_train.corpus.pages import (
    Glyph,
    Joints,
    Piece,
    clean,
    closed_up,
    in_order,
    is_solid,
    line,
    paragraphs,
    pieces_of,
    rows,
    text_of_pages,
    upright,
    without_furniture,
)

WIDTH = 5.0


def piece(text: str, top: float, left: float = 50.0, *, size: float = 10.0, letter: float = WIDTH) -> Piece:
    return Piece(text=text, left=left, right=left + letter * len(text), top=top, bottom=top + size, size=size)


def column(lines: Sequence[str], top: float = 100.0, left: float = 50.0, *, letter: float = WIDTH) -> list[Piece]:
    return [piece(text, top + 12 * number, left, letter=letter) for number, text in enumerate(lines)]


def body(number: int) -> list[Piece]:
    name = "abcdefghijklmnopqrst"[number]
    return column([f"what page {name} says in this line", f"and what {name} says in another one"])


LINES = ["the quick brown fox jumps over the", "lazy dog and then it sleeps for one", "whole day in the shadow of a tree."]


class TestReadingOrder:
    def test_two_columns_are_read_one_after_the_other_whatever_the_order_in_the_file(self) -> None:
        left = column([f"left {number} is a line of the left column" for number in range(6)])
        right = column([f"right {number} is a line of the right one" for number in range(6)], left=270)
        title = [piece("A title that stands above both of the columns of this page", 50, 90)]
        mixed = [each for pair in zip(right, left, strict=True) for each in pair] + title
        assert [[line.text.split()[0] for line in block] for block in in_order(mixed)] == [["A"], ["left"] * 6, ["right"] * 6]

    def test_what_is_above_and_below_a_wide_line_stays_there(self) -> None:
        def halves(top: float, name: str) -> list[Piece]:
            left = column([f"{name} left, a line of the left column"] * 5, top)
            return left + column([f"{name} right, a line of the right one"] * 5, top, 270)

        page = [
            *halves(100, "upper"),
            piece("a heading that runs across both columns of the page, and does", 170),
            *halves(190, "lower"),
        ]
        words = [" ".join(block[0].text.split()[:2]) for block in in_order(page)]
        assert words == ["upper left,", "upper right,", "a heading", "lower left,", "lower right,"]

    def test_three_columns(self) -> None:
        page = [each for number in range(3) for each in column([f"{number} is the number of this"] * 6, left=50 + 150 * number)]
        assert [block[0].text[0] for block in in_order(list(reversed(page)))] == ["0", "1", "2"]

    def test_a_table_is_read_row_by_row(self) -> None:
        cells = [*column([f"drug {number}" for number in range(8)]), *column([f"{number} mg" for number in range(8)], left=300)]
        assert [line.text for block in in_order(cells) for line in block] == [f"drug {number} {number} mg" for number in range(8)]

    def test_a_table_with_wide_cells_is_read_row_by_row_between_columns_of_text(self) -> None:
        left = column([f"left {number} is a line of the left column" for number in range(6)])
        right = column([f"right {number} is a line of the right one" for number in range(6)], left=270)
        title = piece("a heading that runs across both columns of the page, and does", 180)
        cells = [*column([f"drug {n}" for n in range(4)], 200), *column([f"{n} mg a day" for n in range(4)], 200, 270)]
        assert [[line.text for line in block] for block in in_order([*left, *right, title, *cells])][3] == [
            f"drug {number} {number} mg a day" for number in range(4)
        ]

    def test_a_quotation_with_an_indent_is_no_column(self) -> None:
        lines = [f"{number} is a line as long as the page is wide, and no shorter than that" for number in range(5)]
        quoted = column([f"quoted {number} is short" for number in range(5)], 160, 150)
        assert len(in_order([*column(lines), *quoted])) == 1

    def test_blocks_that_are_known_are_not_looked_for(self) -> None:
        first, second = piece("b", 50), piece("a", 10)
        blocks = [
            Piece(**{**{name: getattr(each, name) for name in Piece.__slots__}, "block": n})
            for n, each in enumerate([first, second])
        ]
        assert [block[0].text for block in in_order(blocks)] == ["b", "a"]


class TestRows:
    @pytest.mark.parametrize(
        ("top", "size", "beside"), [(100, 10, True), (104, 10, True), (105, 10, False), (99, 4, True), (98, 4, False)]
    )
    def test_are_of_pieces_that_share_more_than_half_of_their_height(self, top: float, size: float, beside: bool) -> None:
        pieces = [piece("word", 100), piece("2", top, 80, size=size)]
        assert len(rows(pieces)) == (1 if beside else 2)

    @pytest.mark.parametrize(
        ("first", "second", "left", "text"),
        [
            ("heart", "beat", 77, "heartbeat"),
            ("heart", "beat", 77.1, "heart beat"),
            ("心不全の患者", "者", 105, "心不全の患者者"),
            ("心不全の患者", "者", 105.1, "心不全の患者 者"),
        ],
    )
    def test_have_a_space_where_there_is_a_gap(self, first: str, second: str, left: float, text: str) -> None:
        assert line([piece(first, 100), piece(second, 100, left)]).text == text

    def test_are_as_large_as_all_their_pieces(self) -> None:
        found = line([piece("long as it is", 100), piece("2", 96, 60, size=4), piece("1", 108, 70, size=4)])
        assert (found.left, found.right, found.top, found.bottom, found.size) == (50, 115, 96, 112, 10)


class TestFurniture:
    def test_running_heads_and_page_numbers_go(self) -> None:
        pages = [[piece("Internal Medicine", 30), *body(n), piece(f"- {n + 1} -", 780)] for n in range(5)]
        assert without_furniture(pages) == [body(n) for n in range(5)]

    def test_left_and_right_pages_may_have_heads_of_their_own(self) -> None:
        heads = ["{} Chapter 3", "Heart failure {}"]
        pages = [[piece(heads[n % 2].format(n + 10), 30, 50 + 200 * (n % 2)), *body(n)] for n in range(8)]
        assert without_furniture(pages) == [body(n) for n in range(8)]

    def test_a_head_may_change_with_the_chapter(self) -> None:
        pages = [[piece("Lungs" if n < 5 else "Kidneys", 30), *body(n)] for n in range(10)]
        assert without_furniture(pages) == [body(n) for n in range(10)]

    @pytest.mark.parametrize("number", ["{}", "Page {} of 2", "第{}页"])
    def test_two_pages_are_enough_for_numbers_that_grow(self, number: str) -> None:
        pages = [[*body(n), piece(number.format(n + 1), 780)] for n in range(2)]
        assert without_furniture(pages) == [body(n) for n in range(2)]

    def test_roman_numbers_are_page_numbers_too(self) -> None:
        pages = [[*body(n), piece(text, 780)] for n, text in enumerate(["i", "ii", "iii", "iv"])]
        assert without_furniture(pages) == [body(n) for n in range(4)]

    @pytest.mark.parametrize(("pages", "gone"), [(2, False), (3, True)])
    def test_three_pages_must_have_a_head_without_a_number(self, pages: int, gone: bool) -> None:
        book = [[piece("Internal Medicine", 30), *body(n)] for n in range(pages)]
        assert without_furniture(book) == ([body(n) for n in range(pages)] if gone else book)

    @pytest.mark.parametrize(
        ("heads", "number", "gone"),
        [
            ({0, 1, 2}, 1, True),  # three of six pages around it, and one of three of its side
            ({1, 2, 4}, 2, False),  # three of seven, and two of four
            ({0, 2, 4}, 2, True),  # three of seven, and three of four
        ],
    )
    def test_half_of_the_pages_around_must_have_it_or_more_than_half_of_the_left_or_right_ones(
        self, heads: set[int], number: int, gone: bool
    ) -> None:
        book = [[*([piece("Lungs", 30)] if n in heads else []), *body(n)] for n in range(12)]
        book = book[:6] if number == 1 else book
        assert without_furniture(book)[number] == (body(number) if gone else book[number])

    def test_a_row_of_figures_is_the_last_of_a_table_and_words_with_figures_are_not(self) -> None:
        figures = [[*body(n), piece(f"{n + 3} {7 * n} {5 * n} {n * n}", 780)] for n in range(4)]
        assert without_furniture(figures) == figures
        words = [[*body(n), piece(f"Page {n + 1} of 4, volume 2, part 3", 780)] for n in range(4)]
        assert without_furniture(words) == [body(n) for n in range(4)]

    def test_a_line_of_the_text_that_is_on_some_pages_stays(self) -> None:
        pages = [[*([piece("Case report", 100)] if n in (0, 7) else []), *body(n)] for n in range(10)]
        assert without_furniture(pages) == pages

    def test_a_line_that_repeats_elsewhere_on_the_page_stays(self) -> None:
        pages = [[piece("Symptoms", 60 + 31 * n), *column(LINES, 400)] for n in range(4)]
        assert all(page[0].text == "Symptoms" for page in without_furniture(pages))

    def test_a_document_of_one_page_keeps_all(self) -> None:
        page = [piece("Letter", 30), *body(0), piece("1", 780)]
        assert without_furniture([page]) == [page]


class TestParagraphs:
    def test_lines_are_joined_to_paragraphs_at_an_empty_line(self) -> None:
        block = [*column(LINES[:2]), *column(LINES[:2], 136)]
        assert paragraphs([block]) == [" ".join(LINES[:2])] * 2

    def test_a_short_last_line_ends_a_paragraph(self) -> None:
        assert paragraphs([column([*LINES[:2], "It is short", *LINES])]) == [
            " ".join([*LINES[:2], "It is short"]),
            " ".join(LINES),
        ]

    def test_an_indent_starts_a_paragraph(self) -> None:
        block = column([*LINES, *LINES])
        block[3] = piece(block[3].text, block[3].top, 65)
        assert paragraphs([block]) == [" ".join(LINES)] * 2

    def test_a_heading_in_larger_type_is_a_paragraph(self) -> None:
        assert paragraphs([[piece("A heading of the size of a line, no less", 80, size=16), *column(LINES)]])[1] == " ".join(
            LINES
        )

    def test_bullets_are_paragraphs(self) -> None:
        lines = [
            "• fever and a cough that does not end",
            "• pain in the chest when breathing in",
            "• night sweats and loss of weight too",
        ]
        assert paragraphs([column(lines)]) == lines

    def test_a_paragraph_goes_on_in_the_next_column(self) -> None:
        lines = [*LINES[:2], "and what is here has no end but goes"]
        assert paragraphs([column(lines), column(["on in the next column of the page.", "Here."], left=300)])[0].endswith(
            "goes on in the next column of the page. Here."
        )

    def test_a_sentence_that_ends_with_its_column_ends_its_paragraph(self) -> None:
        assert paragraphs([column(LINES), column(LINES, left=300)]) == [" ".join(LINES)] * 2

    def test_one_line_that_sticks_out_does_not_end_the_others(self) -> None:
        lines = [*LINES[:2], f"{LINES[2][:-1]} with more than fits", *LINES[:2], "end."]
        assert paragraphs([column(lines)]) == [" ".join(lines)]

    def test_lines_may_be_as_far_apart_as_they_are_in_the_document(self) -> None:
        wide = [piece(text, 100 + 30 * number) for number, text in enumerate([*LINES, *LINES])]
        assert paragraphs([wide]) == [" ".join([*LINES, *LINES])]

    @pytest.mark.parametrize(
        ("last", "first", "goes_on"),
        [
            (piece("lazy dog and then it sleeps for one", 112), piece("whole day in the shadow of a tree", 100, 300), True),
            (piece("lazy dog and then it sleeps as does", 112), piece("Guillain in the shadow of a tree", 100, 300), True),
            (piece("lazy dog and then it sleeps with A.", 112), piece("whole day in the shadow of a tree", 100, 300), False),
            (piece("lazy dog", 112), piece("whole day in the shadow of a tree", 100, 300), False),
            (piece("lazy arterial hyper-", 112), piece("tension in the shadow of a tree", 100, 300), True),
            (piece("lazy dog and then it sleeps for one", 112), piece("whole day in the shadow", 100, 300, size=16), False),
            (piece("lazy dog and then it sleeps for one", 112), piece("• day in the shadow of a tree", 100, 300), False),
            (piece("LAZY DOG AND THEN IT SLEEPS FOR ONE", 112), piece("Whole day in the shadow of a tree", 100, 300), False),
        ],
        ids=["lower case", "a name", "ended", "room left", "a broken word", "another size", "a bullet", "a heading"],
    )
    def test_what_a_column_cuts_goes_on_in_the_next(self, last: Piece, first: Piece, goes_on: bool) -> None:
        before = [piece(LINES[0], 88), piece(LINES[0], 100), last]
        after = [first, piece("and so on to the end of this.", 112, 300)]
        assert paragraphs([before, after])[0].endswith(last.text) != goes_on

    def test_an_indent_at_the_top_of_a_column_starts_a_paragraph(self) -> None:
        after = [piece("whole day in the shadow of", 100, 315), *column(LINES, 112, 300)]
        assert paragraphs([column(LINES[:2]), after])[0] == " ".join(LINES[:2])

    def test_chinese_and_japanese_lines_are_joined_without_spaces(self) -> None:
        lines = ["心不全とは、心臓の機能が低下し、体に十分な", "血液を送り出せなくなった状態である。"]
        assert paragraphs([column(lines, letter=10)]) == ["".join(lines)]

    def test_latin_words_in_chinese_keep_the_spaces_that_the_document_gives_them(self) -> None:
        tight, loose = ["患者使用ACEI和ARB治疗后感染了", "COVID病毒。"], ["患者使用 ACEI 和 ARB 治疗后感染了", "COVID 病毒。"]
        assert Joints([tight]).joined(tight) == "".join(tight)
        assert Joints([loose]).joined(loose) == " ".join(loose)

    def test_latin_words_in_chinese_have_no_spaces_where_the_document_says_nothing(self) -> None:
        assert Joints([["患者使用", "ACEI"]]).joined(["患者使用", "ACEI"]) == "患者使用ACEI"

    def test_letters_of_full_width_are_joined_without_spaces(self) -> None:
        assert Joints([["血清ＡＳ", "Ｔは"]]).joined(["血清ＡＳ", "Ｔは"]) == "血清ＡＳＴは"

    def test_full_width_marks_take_no_space_from_a_line_break(self) -> None:
        lines = ["包括 IL-1、IL-2、", "IL-6 和 TNF"]
        assert Joints([lines]).joined(lines) == "包括 IL-1、IL-2、IL-6 和 TNF"


class TestHyphens:
    @pytest.mark.parametrize(
        ("lines", "text"),
        [
            (["la hyper-", "tension artérielle"], "la hypertension artérielle"),
            (["артериальная гипер-", "тензия"], "артериальная гипертензия"),
            (["the medi\u00ad", "cation and its ad\u00advantages"], "the medication and its advantages"),
            (["vitamin B-", "12"], "vitamin B-12"),
            (["the Guillain-", "Barré syndrome"], "the Guillain-Barré syndrome"),
            (["protein C-", "reactive"], "protein C-reactive"),
            (["1990 -", "1995"], "1990 - 1995"),
        ],
    )
    def test_a_word_that_a_line_breaks_is_put_together(self, lines: Sequence[str], text: str) -> None:
        assert Joints([lines]).joined(lines) == text

    def test_a_hyphen_that_the_document_has_elsewhere_stays(self) -> None:
        lines = ["a beta-", "blocker; no beta-blocker is", "better than a beta-blocker at"]
        assert Joints([lines]).joined(lines).startswith("a beta-blocker;")

    def test_the_way_that_the_document_writes_most_is_taken(self) -> None:
        lines = ["a beta-", "blocker, betablocker or", "betablocker, or a beta-blocker is", "given"]
        assert Joints([lines]).joined(lines).startswith("a betablocker,")

    def test_few_hyphens_do_not_tell_whether_words_are_broken(self) -> None:
        words = ["arte-", "rial hyper-", "tension medi-", "cation treat-", "ment diag-", "nosis"]
        assert Joints([words]).joined(words) == "arterial hypertension medication treatment diagnosis"

    def test_a_first_part_that_has_hyphens_elsewhere_and_stands_alone_elsewhere_keeps_its_own(self) -> None:
        lines = ["a long-term or long-", "standing disease was standing for long, as", "said"]
        assert Joints([lines]).joined(lines).startswith("a long-term or long-standing disease")

    def test_where_no_word_is_broken_hyphens_are_the_words_own(self) -> None:
        words = ["follow-", "up well-", "known one-", "sided self-", "limiting long-", "standing non-", "specific"]
        assert Joints([words]).joined(words) == "".join(words)


class TestClean:
    def test_ligatures_and_radicals_are_resolved_and_text_is_composed(self) -> None:
        assert clean("eﬃcace e\u0301 ⼼不全") == "efficace é 心不全"

    def test_full_width_letters_stay(self) -> None:
        assert clean("ＡＳＴ　９１Ｕ／Ｌ，") == "ＡＳＴ　９１Ｕ／Ｌ，"

    @pytest.mark.parametrize(
        ("last", "first", "solid"),
        [("心", "不", True), ("。", "A", True), ("A", "「", True), ("心", "A", False), ("A", "B", False)],
    )
    def test_nothing_belongs_between_han_and_beside_their_marks(self, last: str, first: str, solid: bool) -> None:
        assert is_solid(last, first) == solid

    def test_only_spaces_between_han_and_kana_are_taken_out(self) -> None:
        assert closed_up("心 不 全 の CT 検 査 1 回") == "心不全の CT 検査 1 回"


def test_a_book_comes_out_as_its_paragraphs() -> None:
    pages = []
    for n in range(4):
        name = "abcd"[n]
        lines = [
            f"{name} went on so until the end came.",
            f"The next one, which is as long as {name}",
            f"that one was, goes from page {name} on to a",
        ]
        pages.append([piece("A book", 30), *column(lines), piece(str(n + 7), 780)])
    text = text_of_pages(pages)
    assert "A book" not in text
    assert "7" not in text
    assert (
        "came.\n\nThe next one, which is as long as a that one was, goes from page a on to a b went on so until the end came."
        in text
    )


class TestCharacters:
    def glyphs(self, text: str, place: Callable[[int], tuple[float, float]]) -> list[Glyph]:
        return [(char, x, x + 10, y, y + 10) for char, (x, y) in zip(text, map(place, range(len(text))), strict=True)]

    @pytest.mark.parametrize(
        "place",
        [
            lambda n: (50 + 10 * n, 100),
            lambda n: (300, 50 + 10 * n),
            lambda n: (300, 500 - 10 * n),
            lambda n: (500 - 10 * n, 100),
        ],
    )
    def test_lines_that_run_to_any_side_are_read(self, place: Callable[[int], tuple[float, float]]) -> None:
        assert [each.text for each in pieces_of(upright(self.glyphs("心不全の患者", place)))] == ["心不全の患者"]

    def test_one_character_below_another_does_not_turn_the_page(self) -> None:
        glyphs = [("A", 50.0, 60.0, 88.0, 98.0), *self.glyphs("heart", lambda n: (50 + 10 * n, 100))]
        assert [each.text for each in pieces_of(upright(glyphs))] == ["A", "heart"]

    @pytest.mark.parametrize(
        ("glyph", "together"),
        [
            (("2", 60, 65, 96, 103), True),  # raised, 3 of its 7 points beside the letter
            (("2", 60, 65, 94, 102), False),  # 2 of 8
            (("2", 74, 84, 100, 110), True),
            (("2", 75, 85, 100, 110), False),  # a gap of one and a half times the height
            (("2", 49, 59, 100, 110), True),  # as letters of a ligature stand
            (("2", 48, 58, 100, 110), False),
        ],
    )
    def test_what_is_beside_a_character_belongs_to_it(self, glyph: Glyph, together: bool) -> None:
        found = [each.text for each in pieces_of([("H", 50, 60, 100, 110), glyph])]
        assert found == (["H2"] if together else ["H", "2"])

    def test_characters_that_are_not_seen_are_no_piece(self) -> None:
        assert [*pieces_of([("\u200b", 50, 60, 100, 110)])] == []

    def test_vertical_writing_goes_on_at_the_left(self) -> None:
        texts = ["心不全とは、心臓の機能が低下し、", "血液を送り出せない状態である。"]
        columns = [self.glyphs(text, lambda n, x=500 - 20 * number: (x, 100 + 10 * n)) for number, text in enumerate(texts)]
        assert text_of_pages([list(pieces_of(upright([*columns[1], *columns[0]])))]) == "".join(texts)

    def test_a_wide_gap_ends_a_piece_and_a_space_does_not(self) -> None:
        first, second = self.glyphs("ab cd", lambda n: (50 + 10 * n, 100)), self.glyphs("ef", lambda n: (200 + 10 * n, 100))
        assert [each.text for each in pieces_of([*first, *second])] == ["ab cd", "ef"]


def test_nothing_gives_nothing() -> None:
    assert text_of_pages([[], []]) == ""
