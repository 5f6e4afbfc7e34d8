"""The main text of HTML pages: what is kept, what goes, encodings, and pages that mean harm."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

pytest.importorskip("lxml", reason="lxml is not installed")

from mmed_train.corpus.extract import extract_html
from mmed_train.corpus.html import decoded
from mmedeval.errors import DataError, UnknownNameError

# language, heading, text, names of links, a notice about cookies, one about rights
PAGES = {
    "en": (
        "Heart failure",
        "In heart failure the heart does not pump enough blood for the needs of the body. It is common in older people.",
        ("Home", "Conditions", "Drugs"),
        "We use cookies to improve your experience. Accept all",
        "© 2024 A clinic. All rights reserved.",
    ),
    "fr": (
        "Insuffisance cardiaque",
        "L’insuffisance cardiaque est l’incapacité du cœur à assurer un débit suffisant. Elle est fréquente après 75 ans.",
        ("Accueil", "Maladies", "Médicaments"),
        "Ce site utilise des cookies pour améliorer votre navigation.",
        "Mentions légales. Tous droits réservés.",
    ),
    "es": (
        "Insuficiencia cardíaca",
        "La insuficiencia cardíaca es un síndrome en el que el corazón no bombea suficiente sangre. Es común en ancianos.",
        ("Inicio", "Enfermedades", "Fármacos"),
        "Utilizamos cookies. Si continúa navegando, acepta su uso.",
        "Aviso legal. Todos los derechos reservados.",
    ),
    "ru": (
        "Сердечная недостаточность",
        "Сердечная недостаточность — синдром, при котором сердце не обеспечивает потребности организма в крови.",
        ("Главная", "Болезни", "Лекарства"),
        "Мы используем файлы cookie. Продолжая работу с сайтом, вы соглашаетесь с этим.",
        "© Клиника. Все права защищены.",
    ),
    "zh": (
        "心力衰竭",
        "心力衰竭是一种临床综合征，患者的心脏不能泵出足够的血液来满足机体的需要，常见症状为呼吸困难、乏力和水肿。",
        ("首页", "疾病", "药物"),
        "本网站使用 Cookie 来改善您的体验，点击接受即表示同意。",
        "版权所有 京ICP备12345678号",
    ),
    "ja": (
        "心不全",
        "心不全とは、心臓の機能が低下し、体に必要な血液を十分に送り出せなくなった状態であり、息切れやむくみがみられる。",
        ("ホーム", "病気", "医薬品"),
        "当サイトではクッキーを使用しています。",
        "Copyright © 病院. 無断転載を禁じます。",
    ),
}


def old(language: str, *, charset: str = "") -> str:
    """A page as they were, without elements that say what they are."""
    heading, text, links, cookies, rights = PAGES[language]
    menu = " ".join(f'<a href="/{number}">{name}</a>' for number, name in enumerate(links))
    declared = f'<meta http-equiv="Content-Type" content="text/html; charset={charset}">' if charset else ""
    return (
        f"<html><head>{declared}<title>{heading} - A clinic</title></head><body><table><tr><td>{menu}</td></tr><tr><td>"
        f"<h1>{heading}</h1><p>{text}</p></td></tr></table><p>{cookies}</p><p>{rights}</p></body></html>"
    )


def new(language: str, inside: str = "") -> str:
    """A page as they are."""
    heading, text, links, cookies, rights = PAGES[language]
    menu = "".join(f'<li><a href="/{number}">{name}</a></li>' for number, name in enumerate(links))
    return (
        f"<!doctype html><html><head><meta charset=utf-8><title>{heading}</title>"
        "<style>p {}</style><script>var a = '<p>';</script></head>"
        f'<body class="no-sidebar"><header><a href="/">A clinic</a><nav><ul>{menu}</ul></nav></header>'
        f'<div class="cookie-consent"><p>{cookies}</p></div><main><div class="breadcrumb">{menu}</div>'
        f"<article><h1>{heading}</h1><p>{text}</p>{inside}</article><aside><ul>{menu}</ul></aside></main><footer><p>{rights}</p></footer></body></html>"
    )


def text_of(page: str, language: str = "en") -> str:
    return extract_html(page.encode(), language).text


@pytest.mark.parametrize("language", PAGES)
@pytest.mark.parametrize("page", [old, new])
def test_the_main_text_is_what_comes_out(page: object, language: str) -> None:
    heading, text, *_ = PAGES[language]
    found = extract_html((old if page is old else new)(language).encode(), language)
    assert found.text == f"{heading}\n\n{text}"
    assert (found.pages, found.ocr_pages, found.warnings) == (1, (), ())


class TestWhatIsKept:
    def kept(self, inside: str) -> str:
        heading, text, *_ = PAGES["en"]
        return text_of(new("en", inside)).removeprefix(f"{heading}\n\n{text}\n\n")

    def test_lists_have_a_line_per_item(self) -> None:
        inside = "<ul><li>fever<li>cough<ul><li>dry</ul></ul><ol start=3><li>rest</li><li><p>fluids</p></li></ol>"
        assert self.kept(inside) == "- fever\n- cough\n  - dry\n3. rest\n4. fluids"

    def test_tables_have_a_line_per_row(self) -> None:
        inside = "<table><tr><th>drug<th>dose<tr><td><p>bisoprolol</p><td>1.25\nmg<tr><td>ramipril<td></table>"
        assert self.kept(inside) == "drug | dose\nbisoprolol | 1.25 mg\nramipril |"

    def test_short_paragraphs_and_headings_of_an_article_stay(self) -> None:
        assert self.kept("<h2>Signs</h2><p>None.</p><h2>Tests</h2><div>ECG</div>") == "Signs\n\nNone.\n\nTests\n\nECG"

    def test_headings_stay_without_the_link_to_them(self) -> None:
        assert self.kept('<h2>Signs <a href="#signs">#</a></h2><p>None.</p>') == "Signs\n\nNone."

    def test_terms_and_what_they_mean_stay(self) -> None:
        assert self.kept("<dl><dt>NYHA I</dt><dd>no limits</dd></dl>") == "NYHA I\n\nno limits"

    def test_lines_are_broken_where_the_page_says_so(self) -> None:
        assert self.kept("<p>one\n two<br>three</p><pre>a\n  b</pre>") == "one two\nthree\n\na\nb"

    def test_words_inside_of_marks_stay_whole(self) -> None:
        assert (
            self.kept("<p><b>hyper</b>tension, H<sub>2</sub>O, x&shy;ray &amp; caf&eacute;</p>")
            == "hypertension, H2O, xray & café"
        )

    def test_links_inside_of_a_text_stay(self) -> None:
        inside = '<p>See <a href="/a">angina</a> and <a href="/b">stroke</a>, which have the same causes as this disease has.</p>'
        assert self.kept(inside).startswith("See angina and stroke, which")

    def test_a_text_about_cookies_that_is_medicine_stays(self) -> None:
        assert (
            self.kept("<p>The cookie swallow shows how solid food passes.</p>")
            == "The cookie swallow shows how solid food passes."
        )

    def test_line_breaks_of_the_source_are_nothing_between_kana(self) -> None:
        page = new("ja", "<p>体に十分な\n血液を\n  送り出せない。CT と\nMRI</p>")
        assert text_of(page, "ja").endswith("体に十分な血液を送り出せない。CT と MRI")

    def test_readings_above_a_word_go_and_the_word_stays(self) -> None:
        assert text_of(new("ja", "<p><ruby>機能<rp>(</rp><rt>きのう</rt><rp>)</rp></ruby>低下</p>"), "ja").endswith(
            "\n\n機能低下"
        )

    def test_an_article_in_something_that_is_called_a_sidebar_stays(self) -> None:
        heading, text, *_ = PAGES["en"]
        assert text_of(f'<div id="sidebar"><h1>{heading}</h1><p>{text}</p></div><p>Call us!</p>').startswith(
            f"{heading}\n\n{text}"
        )

    def test_the_article_stays_even_if_nothing_of_it_is_long(self) -> None:
        assert text_of("<p>Take one.</p>") == "Take one."


class TestWhatGoes:
    @pytest.mark.parametrize(
        "inside",
        [
            "<script>x</script>", "<style>x</style>", "<noscript>x</noscript>", "<template>x</template>", "<p hidden>x</p>",
            '<p style="display: none">x</p>', "<nav>x</nav>", "<footer>x</footer>", '<div role="navigation">x</div>',
            '<div class="social-share">x</div>', '<div id="relatedArticles">x</div>', "<button>x</button>", "<!-- x -->",
            "<select><option>x</select>", "<svg><text>x</text></svg>", '<ul><li><a href="/x">x</a></ul>',
        ],
    )  # fmt: skip
    def test_is_all_that_is_no_text(self, inside: str) -> None:
        assert text_of(new("en", inside)) == text_of(new("en"))

    def test_are_short_lines_before_and_after_the_text(self) -> None:
        heading, text, *_ = PAGES["en"]
        page = f"<div>Call us</div><div>Monday</div><h1>{heading}</h1><p>{text}</p><div>Print</div><div>Top</div>"
        assert text_of(page) == f"{heading}\n\n{text}"


class TestEncodings:
    @pytest.mark.parametrize(
        ("language", "name", "charset"),
        [
            ("ja", "cp932", "Shift_JIS"), ("ja", "euc_jp", "x-euc-jp"), ("ja", "iso2022_jp", "iso-2022-jp"),
            ("zh", "gb18030", "gb2312"), ("zh", "gbk", "gbk"), ("ru", "cp1251", "windows-1251"), ("ru", "koi8-r", "koi8-r"),
            ("fr", "cp1252", "iso-8859-1"), ("es", "latin-1", "ISO-8859-1"), ("ru", "utf-8", "utf-8"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("declared", [True, False])
    def test_are_found_declared_or_not(self, language: str, name: str, charset: str, declared: bool) -> None:
        heading, text, *_ = PAGES[language]
        if name in ("koi8-r", "latin-1"):
            text = text.replace("—", "-").replace("’", "'").replace("œ", "oe")
        head = f"<head><meta charset='{charset if declared else ''}'></head>"
        page = f"<html>{head}<body><h1>{heading}</h1><p>{text}</p></body></html>"
        found = extract_html(page.encode(name), language)
        assert found.text == f"{heading}\n\n{text}"
        assert "\ufffd" not in found.text
        assert found.warnings == ()

    def test_utf8_is_seen_whatever_is_declared(self) -> None:
        assert extract_html(old("fr", charset="iso-8859-1").encode(), "fr").text == text_of(old("fr"), "fr")

    def test_a_wrong_declaration_is_not_believed(self) -> None:
        assert extract_html(old("ru", charset="utf-8").encode("cp1251", "replace"), "ru").text.startswith(
            "Сердечная недостаточность"
        )

    @pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
    def test_a_byte_order_mark_decides(self, mark: str) -> None:
        assert extract_html(old("ja").encode(mark), "ja").text == text_of(old("ja"), "ja")

    def test_names_that_python_has_for_other_things_are_no_encodings(self) -> None:
        assert decoded(b"<meta charset=hex>caf\xe9", "fr") == ("<meta charset=hex>café", [])

    def test_what_cannot_be_read_is_counted(self) -> None:
        data = b"<p>" + "あ".encode("cp932") * 400 + b"\x81" + b"</p>"
        assert extract_html(data, "ja").warnings == ("1 characters could not be read as cp932",)


class TestHarm:
    @pytest.mark.parametrize("page", ["", "   ", "<html></html>", "<script>x()</script>", "<!--", "\0"])
    def test_a_page_without_text_is_refused(self, page: str) -> None:
        with pytest.raises(DataError, match="the page has no text; save a page that scripts fill"):
            text_of(page)

    def test_an_unknown_language_is_refused(self) -> None:
        with pytest.raises(UnknownNameError, match="unknown language 'de'"):
            text_of(new("en"), "de")

    @pytest.mark.parametrize(
        "parts",
        [
            ("<div>x", 3_000_000), ("<b><p>x", 2_800_000), ("<table><tr><td>x", 1_200_000), ("<", 20_000_000), ("a ", 10_000_000),
            ("<p a=", 4_000_000),
        ],
        ids=lambda parts: parts[0],
    )  # fmt: skip
    def test_twenty_megabytes_of_anything_end_soon(self, parts: tuple[str, int]) -> None:
        page = ("<html><body>" + parts[0] * parts[1]).encode()
        start = time.process_time()
        try:
            found = extract_html(page, "en")
        except DataError as error:
            assert "has no text" in str(error)  # noqa: PT017  # either outcome is right
        else:
            assert len(found.text) <= 5_000_000
        assert time.process_time() - start < 60

    def test_no_more_than_so_many_tags_are_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mmed_train.corpus.html.MOST_TAGS", 100)
        found = extract_html(("<p>A sentence that is text.</p>" * 5_000).encode(), "en")
        assert found.warnings == ("only the first 100 tags or 5000000 characters were read; the page has more",)
        assert found.text.count("A sentence") == 98

    def test_no_more_than_so_many_characters_are_read(self) -> None:
        found = extract_html(b"<p>" + b"word " * 10_000, "en", most_characters=1_000)
        assert len(found.text) <= 1_000
        assert len(found.warnings) == 1

    def test_any_bytes_may_be_given(self) -> None:
        whole: Sequence[int] = new("ru").encode("cp1251", "replace")
        for place in range(0, len(whole), 23):
            data = bytes(whole[:place]) + bytes([place % 256, 0xFF, 0x00]) + bytes(whole[place + 3 :])
            assert isinstance(extract_html(data, "ru").text, str)
