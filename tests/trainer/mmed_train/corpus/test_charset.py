"""Encodings of pages: proven, declared, declared wrong, damaged, and names that mean harm."""

from __future__ import annotations

import pytest

from mmed_train.corpus.charset import decoded

TEXTS = {
    "en": "In heart failure the heart does not pump enough blood for the needs of the body. It is common in older people.",
    "fr": "L’insuffisance cardiaque est l’incapacité du cœur à assurer un débit suffisant. Elle est fréquente après 75 ans.",
    "es": "La insuficiencia cardíaca es un síndrome en el que el corazón no bombea suficiente sangre. Es común en ancianos.",
    "ru": "Сердечная недостаточность — синдром, при котором сердце не обеспечивает потребности организма в крови.",
    "zh": "心力衰竭是一种临床综合征，患者的心脏不能泵出足够的血液来满足机体的需要，常见症状为呼吸困难、乏力和水肿。",
    "ja": "心不全とは、心臓の機能が低下し、体に必要な血液を十分に送り出せなくなった状態であり、息切れやむくみがみられる。",
}


@pytest.mark.parametrize(
    ("language", "name", "charset"),
    [
        ("ja", "cp932", "Shift_JIS"), ("ja", "euc_jp", "x-euc-jp"), ("ja", "iso2022_jp", "iso-2022-jp"),
        ("zh", "gb18030", "gb2312"), ("zh", "gbk", "gbk"), ("ru", "cp1251", "windows-1251"), ("ru", "koi8-r", "koi8-r"),
        ("fr", "cp1252", "iso-8859-1"), ("es", "latin-1", "ISO-8859-1"), ("ru", "utf-8", "utf-8"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("declared", [True, False])
def test_an_encoding_is_found_declared_or_not(language: str, name: str, charset: str, declared: bool) -> None:
    text = TEXTS[language]
    if name in ("koi8-r", "latin-1"):
        text = text.replace("—", "-").replace("’", "'").replace("œ", "oe")
    page = f"<html><head><meta charset='{charset if declared else ''}'></head><body><p>{text}</p></body></html>"
    assert decoded(page.encode(name), language) == (page, [])


def test_utf8_is_seen_whatever_is_declared() -> None:
    page = f"<meta charset=iso-8859-1>{TEXTS['fr']}"
    assert decoded(page.encode(), "fr") == (page, [])


def test_a_wrong_declaration_is_not_believed() -> None:
    page = f"<meta charset=utf-8>{TEXTS['ru']}"
    assert decoded(page.encode("cp1251"), "ru") == (page, [])


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_decides(mark: str) -> None:
    assert decoded(TEXTS["ja"].encode(mark), "ja") == (TEXTS["ja"], [])
    assert decoded(TEXTS["ja"].encode(mark) + b"\xff", "ja")[1][0].startswith("1 characters could not be read as utf-")


@pytest.mark.parametrize(
    "name",
    [
        "hex", "idna", "punycode", "base64", "bz2", "zlib", "quopri", "rot13", "uu", "undefined", "unicode_escape",
        "raw_unicode_escape", "utf-7", "utf-16", "utf-32", "cp037", "mbcs", "no-such-encoding", "a" * 5_000, "..", ":",
    ],
)  # fmt: skip
def test_names_of_anything_but_text_of_the_web_are_no_encodings(name: str) -> None:
    page = f"<meta charset={name}>caf".encode() + b"\xe9"
    assert decoded(page, "fr") == (page.decode("cp1252"), [])


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("latin1", "cp1252"), ("us-ascii", "cp1252"), ("ISO-8859-15", "iso8859-15"), ("x-cp1251", "cp1251"),
        ("windows-1250", "cp1250"), ("cyrillic", "iso8859-5"), ("KOI8-U", "koi8-u"), ("ibm866", "cp866"),
        ("x-mac-cyrillic", "mac-cyrillic"), ("macintosh", "mac-roman"), ("x-sjis", "cp932"), ("MS_Kanji", "cp932"),
        ("csISO2022JP", "iso2022_jp"), ("x-euc-jp", "euc_jp"), ("x-gbk", "gb18030"), ("chinese", "gb18030"),
        ("big5-hkscs", "big5hkscs"), ("ks_c_5601-1987", "cp949"), ("tis-620", "cp874"),
    ],
)  # fmt: skip
def test_labels_of_the_web_are_those_of_its_standard(label: str, name: str) -> None:
    words = {
        "cp1252": "café",
        "mac-roman": "café",
        "iso8859-15": "cœur",
        "cp1250": "świąd",
        "cp949": "심부전",
        "cp874": "หัวใจ",
    }
    cyrillic = ("cp1251", "iso8859-5", "koi8-u", "cp866", "mac-cyrillic")
    page = f"<meta charset='{label}'>" + words.get(name, "сердце" if name in cyrillic else "醫院心不全")
    assert decoded(page.encode(name), "en") == (page, [])


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("declared", [b"", b"<meta charset=utf-8>", b"<meta charset=gbk>", b"<meta charset=windows-1252>"])
def test_a_wrong_byte_does_not_make_utf8_another_encoding(language: str, declared: bytes) -> None:
    whole = "Ça, 心, ж. " + " ".join([TEXTS[language]] * 3)
    data = whole.encode()
    for bad in (b"\xff", b"\xe9", b"\x80", b"\xe3\x81"):
        text, warnings = decoded(declared + data + bad + data, language)
        assert text == declared.decode() + whole + "\ufffd" + whole
        assert warnings == ["1 characters could not be read as utf-8"]


def test_a_page_that_is_cut_in_the_middle_of_a_character_is_utf8() -> None:
    data = TEXTS["fr"].encode()
    cut = data[: data.rindex("é".encode()) + 1]
    assert decoded(cut, "fr") == (cut[:-1].decode() + "\ufffd", ["1 characters could not be read as utf-8"])


@pytest.mark.parametrize("language", ["fr", "es"])
def test_few_letters_with_accents_in_much_markup_are_not_lost_to_a_wrong_declaration(language: str) -> None:
    page = f"<meta charset=utf-8>{'<br class=x>' * 500}{TEXTS[language][:20]} né à"
    assert decoded(page.encode("cp1252"), language) == (page, [])


@pytest.mark.parametrize("escape", ["\x1b$", "\x1b$B", "\x1b$@", "\x1b[0m \x1b$B \x1b(B"])
@pytest.mark.parametrize("language", TEXTS)
def test_an_escape_sequence_in_utf8_changes_nothing(language: str, escape: str) -> None:
    page = f"{TEXTS[language]} {escape} {TEXTS[language]}"
    assert decoded(page.encode(), language) == (page, [])


def test_what_cannot_be_read_is_counted() -> None:
    data = b"<p>" + "あ".encode("cp932") * 400 + b"\x81" + b"</p>"
    assert decoded(data, "ja")[1] == ["1 characters could not be read as cp932"]


def test_a_character_that_iso_2022_jp_has_not_does_not_make_it_another_encoding() -> None:
    data = TEXTS["ja"].encode("iso2022_jp") + b"\x1b$B-!\x1b(B"  # ① of another set
    text, warnings = decoded(data, "ja")
    assert text.startswith(TEXTS["ja"])
    assert len(warnings) == 1
    assert warnings[0].endswith("could not be read as iso2022_jp")


def test_of_encodings_that_all_fail_the_one_that_reads_most_is_taken() -> None:
    whole = TEXTS["zh"] * 5
    data = b"\xff".join([whole.encode("gbk")] * 30)
    text, (warning,) = decoded(b"<meta charset=euc-jp>" + data, "zh")
    assert text.count(whole) == 30
    assert warning == "29 characters could not be read as gb18030"
