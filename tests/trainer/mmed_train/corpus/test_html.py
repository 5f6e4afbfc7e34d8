"""The main text of HTML pages: what is kept, what goes, encodings, and pages that mean harm."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("lxml", reason="lxml is not installed")

from mmed_train.corpus.extract import extract_html
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

    def test_lists_in_lists_are_counted_and_indented_each_by_itself(self) -> None:
        inside = "<ol start=0><li>a<ol><li>b<li>c</ol><li>d</ol>" + "<ul><li>e" * 7
        assert self.kept(inside).split("\n") == [
            "0. a",
            "  1. b",
            "  2. c",
            "1. d",
            *(f"{'  ' * depth}- e" for depth in (0, 1, 2, 3, 4, 4, 4)),
        ]

    @pytest.mark.parametrize("start", ["²", "-3", "x", "", "1234567", "९"])
    def test_lists_that_start_with_no_number_start_with_one(self, start: str) -> None:
        assert self.kept(f"<ol start='{start}'><li>rest<li>fluids</ol>") == "1. rest\n2. fluids"

    def test_a_header_is_furniture_but_for_that_of_an_article(self) -> None:
        assert self.kept("<header><p>By a doctor.</p></header>") == "By a doctor."
        assert text_of(f"<header><p>A clinic in town.</p></header>{new('en')}") == text_of(new("en"))

    @pytest.mark.parametrize(
        ("row", "found"),
        [
            ("<td>One cell.", "One cell."),
            ("<td><p>One.</p><p>Two.</p><td>Three.", "One.\n\nTwo.\n\nThree."),
            (f"<td>a<td>{'b' * 1_999}", f"a | {'b' * 1_999}"),
            (f"<td>a<td>{'b' * 2_000}", f"a\n\n{'b' * 2_000}"),
            ("<td>one<br>two<td>three", "one two | three"),
            (f"<td>{'long ' * 20}<br>two<td>three", f"{'long ' * 19}long\ntwo\n\nthree"),
        ],
    )
    def test_a_row_that_is_a_layout_is_text(self, row: str, found: str) -> None:
        assert self.kept(f"<table><tr>{row}</table>") == found

    def test_what_stands_before_the_first_cell_of_a_row_in_a_row_stays(self) -> None:
        assert self.kept("<table><tr><td>a<td><table><tr>b<td>c<td>d</table></table>").split() == ["a", "b", "c", "|", "d"]

    def test_tables_have_a_line_per_row(self) -> None:
        inside = "<table><tr><th>drug<th>dose<tr><td><p>bisoprolol</p><td>1.25\nmg<tr><td>ramipril<td></table>"
        assert self.kept(inside) == "drug | dose\nbisoprolol | 1.25 mg\nramipril |"

    def test_what_stands_in_a_row_before_its_first_cell_stays_in_its_place(self) -> None:
        assert self.kept("<table><tr>Doses<td>one<td>two</table>") == "Doses\none | two"

    def test_a_table_in_a_cell_is_not_a_part_of_the_row_around_it(self) -> None:
        inner = "<table><tr><td>bisoprolol<td>1.25 mg<tr><td>ramipril<td>2.5 mg</table>"
        assert self.kept(f"<table><tr><td>Before.<td>{inner}<td>After.</table>") == (
            "Before.\n\nbisoprolol | 1.25 mg\nramipril | 2.5 mg\n\nAfter."
        )

    def test_rows_without_text_are_nothing(self) -> None:
        inside = "<table><tr><td>drug<td>dose<tr><td> <td><tr><td><td><br><tr><td>ramipril<td>2.5 mg</table>"
        assert self.kept(inside) == "drug | dose\nramipril | 2.5 mg"

    def test_the_text_of_tables_in_tables_in_tables_stays(self) -> None:
        inside = "".join(f"<table><tr><td>{number}<td>" for number in range(12)) + "end" + "</table>" * 12
        assert self.kept(inside + "<table><tr><td>one<td>two</table>").split() == [*map(str, range(12)), "end", "one", "|", "two"]

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


class TestEdges:
    """Outside of an article, only what is a text, a list, a table or a sentence is its first or last part."""

    def page(self, after: str) -> str:
        heading, text, *_ = PAGES["en"]
        return f"<h1>{heading}</h1><p>{text}</p>{after}<div>Print</div>"

    @pytest.mark.parametrize(
        ("after", "found"),
        [
            ("<p>Call a doctor if it gets worse.</p>", "Call a doctor if it gets worse."),
            ("<p>Call a doctor if it gets worse</p>", ""),
            ("<p>Call us.</p>", ""),
            ("<ul><li>rest</ul>", "- rest"),
            ("<table><tr><td>rest<td>a week</table>", "rest | a week"),
            ("<dl><dt>rest<dd>a week</dl>", "rest\n\na week"),
        ],
    )
    def test_are_these(self, after: str, found: str) -> None:
        assert text_of(self.page(after)).removeprefix(text_of(self.page(""))).strip() == found


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("<body class='sidebar'><h1>", "</h1>"),
        ("<body><main class='widget'><h1>", "</h1>"),
        ("<body><article id='related'><h1>", "</h1>"),
        ("<body><h1 class='menu'>", "</h1>"),
    ],
)
def test_pages_articles_and_headings_are_no_furniture_whatever_they_are_called(start: str, end: str) -> None:
    heading, text, *_ = PAGES["en"]
    below = f"<div><p>{text}</p><p>{text}</p></div><p>{text}</p>"
    assert text_of(f"<html class='nav'>{start}{heading}{end}{below}") == "\n\n".join([heading, text, text, text])


class TestNotices:
    """What a site says of itself goes; what medicine says of the same things stays."""

    def test_are_neither_headings_nor_long(self) -> None:
        inside = "<h2>Privacy policy</h2><p>This site is about cookies. " + "It is a text. " * 30 + "</p>"
        assert text_of(new("en", inside)).endswith("Privacy policy\n\nThis site is about cookies." + " It is a text." * 30)

    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("en", "We use cookies to improve your experience."), ("en", "Accept all cookies"),
            ("en", "Privacy Policy | Terms of Use"),
            ("en", "By using this website you agree to our terms of use."), ("en", "Copyright 2019 by a clinic."),
            ("en", "This site stores third-party cookies in your browser."),
            ("fr", "Ce site utilise des cookies."), ("fr", "Accepter les cookies"), ("fr", "Mentions légales"),
            ("fr", "Notre politique de confidentialité vaut pour tout le site web."), ("fr", "© 2020, tous droits réservés"),
            ("es", "Utilizamos cookies propias y de terceros."), ("es", "Aceptar las cookies"), ("es", "Aviso legal"),
            ("es", "La política de privacidad de este sitio."), ("es", "Todos los derechos reservados."),
            ("ru", "Наш сайт использует cookies."), ("ru", "Мы используем файлы cookie."), ("ru", "Политика конфиденциальности"),
            ("ru", "Пользовательское соглашение нашего сайта."), ("ru", "Все права защищены."),
            ("zh", "本网站使用 cookie。"), ("zh", "请在浏览器中启用 Cookie。"), ("zh", "隐私政策"), ("zh", "版权所有 某某医院"),
            ("ja", "当サイトではCookieを使用します。"), ("ja", "ブラウザのクッキーを有効にしてください。"), ("ja", "利用規約"),
            ("ja", "当サイトにおける個人情報の取り扱い"), ("ja", "無断転載を禁じます。"),
        ],
    )  # fmt: skip
    def test_go(self, language: str, text: str) -> None:
        assert text_of(new(language, f"<p>{text}</p>"), language) == text_of(new(language), language)

    @pytest.mark.parametrize(
        ("language", "text"),
        [
            ("en", "The patient accepts a cookie in the setting of a milk challenge."),
            ("en", "In the Cookie Theft task, used with consent, she names few things."),
            ("en", "The privacy policy of the ward protects every patient."),
            ("en", "We follow the terms of use of the inhaler."),
            ("en", "The authors hold the copyright of the scale."),
            ("en", "(c) 2019 guidelines advise beta-blockers."),
            ("en", "She had chemotherapy with Mitomycin-C©."),
            ("en", "Consent was given, and privacy is kept at the site of care."),
            ("fr", "On utilise des cookies au lait cuit; l'enfant les accepte."),
            ("fr", "Respecter les conditions d'utilisation du dispositif médical."),
            ("fr", "Le patient prend Doliprane© trois fois par jour."),
            ("fr", "La politique de confidentialité de l'essai protège les patients."),
            ("es", "El niño acepta cookies con leche, que se utilizan en la prueba."),
            ("es", "Los términos de uso de la escala permiten su aplicación."),
            ("es", "La política de privacidad del hospital protege la historia clínica."),
            ("es", "El copyright de la escala es de sus autores."),
            ("ru", "Для пробы использовали cookie с молоком, пациент дал согласие."),
            ("ru", "Политика конфиденциальности клиники защищает больных."),
            ("ru", "Препарат Мезим© назначен в дозе 10 мг."),
            ("ru", "Картинка Cookie Theft используется при афазии."),
            ("zh", "采用Cookie Theft图片，经同意使用录音。"),
            ("zh", "本量表的版权所有者为其作者。"),
            ("zh", "研究遵循隐私政策，保护患者信息。"),
            ("zh", "患者接受cookie口服激发试验。"),
            ("ja", "患者の個人情報の取り扱いを説明し、同意を得た。"),
            ("ja", "クッキーを利用した負荷試験でサイトカインを測定した。"),
            ("ja", "失語症ではクッキー泥棒の絵を使用する。"),
            ("ja", "尺度の利用規約に従い評価した。"),
        ],
    )  # fmt: skip
    def test_stay_where_they_are_medicine(self, language: str, text: str) -> None:
        assert text_of(new(language, f"<p>{text}</p>"), language).endswith(f"\n\n{text}")


@pytest.mark.parametrize("declared", ["Shift_JIS", ""])
def test_the_encoding_is_found_and_what_it_cannot_be_read_as_is_told(declared: str) -> None:
    page = old("ja", charset=declared).replace("©", "")
    data = page.encode("cp932")
    assert extract_html(data, "ja") == extract_html(page.encode(), "ja")
    assert extract_html(data.replace(b"</h1>", b"\x81</h1>"), "ja").warnings == ("1 characters could not be read as cp932",)


class TestHarm:
    @pytest.mark.parametrize("page", ["", "   ", "<html></html>", "<script>x()</script>", "<!--", "\0"])
    def test_a_page_without_text_is_refused(self, page: str) -> None:
        with pytest.raises(DataError, match="the page has no text; save a page that scripts fill"):
            text_of(page)

    def test_what_the_parser_refuses_is_an_error_of_the_page(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from lxml import etree

        def refuse(data: bytes) -> None:
            raise etree.XMLSyntaxError("no page", 1, 1, 1)

        monkeypatch.setattr(etree, "HTMLParser", lambda **_: SimpleNamespace(feed=refuse))
        with pytest.raises(DataError, match="the page cannot be parsed: no page"):
            text_of(new("en"))

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

    def test_no_more_than_so_many_bytes_are_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "page.html"
        page = new("en").encode()
        path.write_bytes(page)
        monkeypatch.setattr("mmed_train.corpus.html.LONGEST", len(page))
        assert extract_html(path, "en") == extract_html(page, "en")
        path.write_bytes(page + b" ")
        with pytest.raises(DataError, match=r"page\.html has more than 0 MB; cut it into"):
            extract_html(path, "en")
        with pytest.raises(DataError, match="the page has more than 0 MB; cut it into"):
            extract_html(page + b" ", "en")

    def test_a_file_without_text_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "page.html"
        path.write_bytes(b"<script>x()</script>")
        with pytest.raises(DataError, match=r"page\.html has no text; save a page that scripts fill"):
            extract_html(path, "en")

    def test_a_file_without_an_end_is_not_read_to_it(self) -> None:
        with pytest.raises(DataError, match="/dev/zero has more than 64 MB; cut it into"):
            extract_html(Path("/dev/zero"), "en")

    def test_any_bytes_may_be_given(self) -> None:
        whole: Sequence[int] = new("ru").encode("cp1251", "replace")
        for place in range(0, len(whole), 23):
            data = bytes(whole[:place]) + bytes([place % 256, 0xFF, 0x00]) + bytes(whole[place + 3 :])
            assert isinstance(extract_html(data, "ru").text, str)
