"""The main text of HTML pages: read in one pass, without a tree, so that time and memory stay in bounds whatever a page holds.

A page becomes blocks of text that know which elements they were in. Navigation, footers and the like go by their elements and
classes, lists of links by how much of them is links, notices about cookies and copyright by their words, and short blocks at
the edges by standing alone (the idea of Kohlschütter et al. 2010, "Boilerplate Detection using Shallow Text Features").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmed_train.corpus.charset import decoded
from mmed_train.corpus.documents import LONGEST
from mmed_train.corpus.ocr import code
from mmed_train.corpus.pages import UNSPACED, Extracted, clean
from mmedeval import DataError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SKIPPED = _words(
    "script style noscript template svg math canvas iframe object video audio map select datalist button textarea head rt rp"
)
_FURNITURE = _words("nav footer aside dialog menu")
_BLOCKS = _words(
    "address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure footer"
    " form h1 h2 h3 h4 h5 h6 header hr html legend li main menu nav ol p pre section summary table tbody td tfoot th thead"
    " title tr ul"
)
_HEADINGS = _words("h1 h2 h3 h4 h5 h6")
_MAIN = _words("main article")
_ROLES = _words("navigation banner contentinfo search complementary menu menubar dialog alertdialog tablist toolbar")
# What class and id call furniture. Only whole words count: "footnotes" and "advice" are none of these.
_NAMES = _words(
    "ad ads advert advertisement banner breadcrumb breadcrumbs captcha comments consent cookie cookies crumbs disqus footer"
    " gdpr login masthead menu menubar modal nav navbar navigation newsletter overlay pager paginate pagination popup promo"
    " recommended related share sharing shares sidebar signup skip sitemap social sponsor sponsored subscribe tagcloud"
    " toolbar widget"
)
_PARTS = re.compile(r"[A-Za-z][a-z]*|[A-Z]+(?![a-z])")
_STATES = re.compile(r"^(has|with|no|is|js|without|page|html|body|site)[-_A-Z]")
# Links to a heading, beside it.
_ANCHORS = frozenset("#¶§🔗")
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)

_COOKIE = re.compile(r"(?<![a-z])cookies?(?![a-z])|クッキー", re.IGNORECASE)
# What texts about a site's rules name beside them: the site, and those who look at it. Cytokines are no サイト.
_SITE = re.compile(
    r"\b(?:web ?sites?|(?:this|our) site|browsers?|your (?:browsing|device|experience|preferences|privacy|visit)|third[- ]party"
    r"|cookie (?:banner|notice|policy|preferences|settings)|accept (?:all |our )?cookies"
    r"|(?:ce|notre) site|site (?:internet|web)|navigateurs?|votre (?:appareil|expérience|navigation)"
    r"|accepter? (?:(?:tous )?les )?cookies|(?:este|nuestro) sitio|(?:sitio|página) web|navegador|navegando"
    r"|su (?:dispositivo|experiencia|navegación)|de terceros|acept(?:ar|o) (?:(?:todas )?las )?cookies"
    r"|сайт(?:а|е|ом|у)?|браузер\w*|файл\w* cookie|cookie-файл\w*)\b"
    r"|网站|網站|本站|浏览器|瀏覽器|您的(?:设备|体验|隐私)|(?:当|本|この|ウェブ|web) ?サイト|ブラウザ|ホームページ",
    re.IGNORECASE,
)
# Only as these formulas: articles have authors with rights, and patients have some, too.
_RIGHTS = re.compile(
    r"^\W*©|©\s*(?:19|20)\d\d|\bcopyright\s*(?:©|\(c\)|(?:19|20)\d\d)|\ball rights reserved\b|\btous droits réservés\b"
    r"|\bderechos reservados\b|\bвсе права защищены\b|版(?:权|權)所有(?![者人权權])|無断転載|ICP备|公网安备",
    re.IGNORECASE,
)
_RULES = re.compile(
    r"\b(?:privacy policy|terms of (?:use|service)|politique de confidentialité|mentions légales|conditions d['’]utilisation"
    r"|política de privacidad|aviso legal|términos de uso|политик\w+ конфиденциальности|пользовательск\w+ соглашени\w+)\b"
    r"|隐私政策|隐私声明|プライバシーポリシー|個人情報の取り?扱い|個人情報保護方針|利用規約",
    re.IGNORECASE,
)
_LETTER = re.compile(r"[^\W\d_]")
_SPACES = re.compile(r"[ \t\r\f\v\u00a0\u2000-\u200a\u202f\u205f]+")
_BREAK_BETWEEN = re.compile(f"(?<=[{UNSPACED}]) ?\n ?(?=[{UNSPACED}])")
_HAN = re.compile(f"[{UNSPACED}]")

# A list or a short text of which more is links is one of links.
MOST_LINKED = 0.5
# Text of so many letters (a Han one counts as three) is text wherever it stands; notices are shorter than this.
LONG, NOTICE = 80, 400
_HAN_WEIGHT = 3
# A row of cells is a row of a table up to so many characters; above, a layout.
_LONGEST_ROW = 2_000
# Rows in cells of rows: so many levels are followed.
_DEEPEST = 8
MOST_TAGS = 200_000
_STEP = 1 << 16
# A line break that a page shows, while it is read: a vertical tab.
_BREAK = "\v"


@dataclass(slots=True)
class _Block:
    """A stretch of text: what it is in, whether by the names of its elements it is furniture, and how many letters are links."""

    text: str
    tag: str
    linked: int = 0
    main: bool = False
    named: bool = False
    items: bool = False

    @property
    def size(self) -> int:
        """Letters, Han ones counted for what they say."""
        return len(self.text) + (_HAN_WEIGHT - 1) * len(_HAN.findall(self.text))

    @property
    def links(self) -> float:
        return self.linked / len(self.text) if self.text else 0.0


def extract_html(page: bytes | Path, language: str, *, most_characters: int = 5_000_000) -> Extracted:
    """The main text of an HTML page or file, paragraphs set apart by empty lines; lists and tables have a line per item and row.

    The encoding is what the bytes prove, what the page declares, or what fits the language best, in that order. What is behind
    the first `MOST_TAGS` tags or `most_characters` characters is left out, with a warning. Raises `DataError` for a page without
    text, or of more than `LONGEST` bytes.
    """
    code(language)
    if isinstance(page, Path):
        with page.open("rb") as file:
            data = file.read(LONGEST + 1)
    else:
        data = page
    name = str(page) if isinstance(page, Path) else "the page"
    if len(data) > LONGEST:
        raise DataError(f"{name} has more than {LONGEST >> 20} MB; cut it into pages of less")
    text, warnings = decoded(data, language)
    reader = _Reader(most_characters)
    finished = _feed(reader, text)
    if not finished:
        warnings = [*warnings, f"only the first {MOST_TAGS} tags or {most_characters} characters were read; the page has more"]
    found = _written(_wanted(reader.blocks))
    if not found:
        what = "" if finished else "the part that was read of "
        raise DataError(f"{what}{name} has no text; save a page that scripts fill from a browser, as it is shown")
    return Extracted(text=found, warnings=tuple(warnings))


def _feed(reader: _Reader, text: str) -> bool:
    """Whether the page was read to its end."""
    from lxml import etree

    # Without the tree there is nothing that a limit of libxml2 would have to protect.
    parser = etree.HTMLParser(target=reader, encoding="utf-8", huge_tree=True)
    data = text.replace("\0", "").encode("utf-8", "replace")
    try:
        for start in range(0, len(data), _STEP):
            parser.feed(data[start : start + _STEP])
            if reader.full:
                break
        else:
            if data:  # it cannot do without
                parser.close()
    except etree.LxmlError as error:
        raise DataError(f"the page cannot be parsed: {error}") from error
    reader.close()
    return not reader.full


# --- reading ----------------------------------------------------------------------------------------------------------------


class _Reader:
    """Takes a page tag by tag, as lxml's parser target, and makes blocks of it."""

    def __init__(self, most_characters: int) -> None:
        self.blocks: list[_Block] = []
        self.full = False
        self._left, self._tags = most_characters, 0
        self._open: list[tuple[str, bool, bool, bool]] = []
        self._within: list[str] = []
        self._skipped = self._named = self._mains = self._links = self._pre = self._items = 0
        # The number of the next item of each open list; -1 for those without numbers.
        self._lists: list[list[int]] = []
        # The open rows of tables, the blocks of each of their cells.
        self._rows: list[list[list[_Block]]] = []
        self._deeper = 0
        self._text: list[str] = []
        self._linked = 0
        self._prefix = ""

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if self.full:
            return
        self._tags += 1
        self.full = self._tags > MOST_TAGS
        if tag in _BLOCKS:
            self._flush()
            self._within.append(tag)
        skipped = tag in _SKIPPED or _is_hidden(attributes)
        named = _is_furniture(tag, attributes, in_main=self._mains > 0)
        main = tag in _MAIN or attributes.get("role") == "main" or attributes.get("itemprop") == "articleBody"
        self._open.append((tag, skipped, named, main))
        self._skipped += skipped
        self._named += named
        self._mains += main
        self._links += tag == "a"
        self._pre += tag == "pre"
        if tag == "br":
            self._text.append(_BREAK)
        elif tag in ("ul", "ol"):
            self._lists.append([_number(attributes.get("start", "1")) if tag == "ol" else -1])
        elif tag == "li":
            self._items += 1
            self._prefix = self._bullet()
        elif tag == "tr":
            if len(self._rows) < _DEEPEST:
                self._rows.append([])
            else:
                self._deeper += 1
        elif tag in ("td", "th") and self._rows and not self._deeper:
            self._rows[-1].append([])

    def end(self, tag: str) -> None:
        if self.full or not self._open:
            return
        opened, skipped, named, main = self._open[-1]
        if opened in _BLOCKS:
            self._flush()
            self._within.pop()
        self._open.pop()
        self._skipped -= skipped
        self._named -= named
        self._mains -= main
        self._links -= opened == "a"
        self._pre -= opened == "pre"
        if opened in ("ul", "ol"):
            self._lists.pop()
        elif opened == "li":
            self._items -= 1
            self._prefix = ""
        elif opened == "tr" and self._deeper:
            self._deeper -= 1
        elif opened == "tr":
            self._end_row()

    def data(self, text: str) -> None:
        if self._skipped or self.full or (self._links and text.strip() in _ANCHORS):
            return
        text = text[: max(self._left, 0)].replace(_BREAK, " ")
        self._left -= len(text)
        self.full = self._left <= 0
        self._text.append(text.replace("\n", _BREAK) if self._pre else text)
        if self._links:
            self._linked += len(text.strip())

    def close(self) -> None:
        self._flush()
        while self._rows:
            self._end_row()

    def _bullet(self) -> str:
        if not self._lists:
            return "- "
        depth, numbers = len(self._lists), self._lists[-1]
        indent = "  " * (min(depth, 5) - 1)
        if numbers[0] < 0:
            return f"{indent}- "
        numbers[0] += 1
        return f"{indent}{numbers[0] - 1}. "

    def _flush(self) -> None:
        if not self._text:
            return
        text = _tidy("".join(self._text))
        if text:
            block = _Block(
                text=self._prefix + text,
                tag=self._within[-1] if self._within else "body",
                linked=len(self._prefix + text) if self._linked >= len(text) else self._linked,
                main=self._mains > 0,
                named=self._named > 0,
                items=self._items > 0,
            )
            self._prefix = ""
            self._add(block)
        self._text.clear()
        self._linked = 0

    def _add(self, block: _Block) -> None:
        # Text may stand in a row before its first cell, within a cell of another row.
        cells = next((row for row in reversed(self._rows) if row), None)
        (cells[-1] if cells else self.blocks).append(block)

    def _end_row(self) -> None:
        cells = self._rows.pop()
        inside = [block for cell in cells for block in cell]
        if not inside:
            return
        is_row = (
            len(cells) > 1 and all(len(cell) <= 1 for cell in cells) and sum(len(block.text) for block in inside) <= _LONGEST_ROW
        )
        if not is_row or any("\n" in block.text and len(block.text) > LONG for block in inside):
            for block in inside:
                self._add(block)
            return
        texts = [" ".join(cell[0].text.split()) if cell else "" for cell in cells]
        self._add(
            _Block(
                text=" | ".join(texts).strip(),
                tag="tr",
                linked=sum(block.linked for block in inside),
                main=inside[0].main,
                named=inside[0].named,
            )
        )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 1


def _is_hidden(attributes: Mapping[str, str]) -> bool:
    return "hidden" in attributes or bool(_HIDDEN.search(attributes.get("style", "")[:500]))


def _is_furniture(tag: str, attributes: Mapping[str, str], *, in_main: bool) -> bool:
    if tag in _FURNITURE or (tag == "header" and not in_main) or attributes.get("role") in _ROLES:
        return True
    if tag in _MAIN or tag in ("html", "body") or tag in _HEADINGS:
        return False
    names = f"{attributes.get('class', '')} {attributes.get('id', '')}"[:500].split()
    return any(part.lower() in _NAMES for name in names if not _STATES.match(name) for part in _PARTS.findall(name))


def _tidy(text: str) -> str:
    """White space as a browser shows it, `_BREAK` as line breaks; between Han or kana a line break of the source is nothing."""
    lines = []
    for line in text.split(_BREAK):
        solid = _BREAK_BETWEEN.sub("", _SPACES.sub(" ", line)) if "\n" in line else line
        lines.append(" ".join(clean(solid).split()).replace("\u00ad", ""))
    return "\n".join(line for line in lines if line)


# --- choosing ---------------------------------------------------------------------------------------------------------------


def _wanted(blocks: Sequence[_Block]) -> list[_Block]:
    unnamed = [block for block in blocks if not block.named]
    # Names lie on some pages: a whole article in a "sidebar".
    if _good(unnamed) * 3 < _good(blocks):
        unnamed = list(blocks)
    main = [block for block in unnamed if block.main]
    chosen = main if _good(main) * 2 > _good(unnamed) else unnamed
    chosen = [block for block in chosen if not _is_notice(block)]
    chosen = [block for group in _groups(chosen) if not _are_links(group) for block in group]
    return _without_edges(chosen)


def _good(blocks: Iterable[_Block]) -> int:
    return sum(block.size for block in blocks if block.links <= MOST_LINKED and not _is_notice(block))


def _groups(blocks: Sequence[_Block]) -> list[list[_Block]]:
    """Items of a list and rows of a table together, everything else by itself."""
    found: list[list[_Block]] = []
    before = ""
    for block in blocks:
        kind = "li" if block.items else block.tag if block.tag == "tr" else ""
        if kind and kind == before:
            found[-1].append(block)
        else:
            found.append([block])
        before = kind
    return found


def _are_links(group: Sequence[_Block]) -> bool:
    letters = sum(len(block.text) for block in group)
    return sum(block.linked for block in group) > MOST_LINKED * letters and group[0].tag not in _HEADINGS


def _is_notice(block: _Block) -> bool:
    """Whether it is about cookies, rights or rules of the site, rather than about what medicine has of them."""
    text = block.text
    if len(text) > NOTICE or block.tag in _HEADINGS:
        return False
    of_site = _SITE.search(text) is not None
    if block.size <= 2 * LONG:
        if _RIGHTS.search(text):
            return True
        names = _RULES.sub("", text)
        if names != text and (of_site or not _LETTER.search(names)):
            return True
    return of_site and _COOKIE.search(text) is not None


def _without_edges(blocks: Sequence[_Block]) -> list[_Block]:
    """Blocks from the first to the last that is a text, a list, a table or a sentence, with the headings in front."""
    kept = [number for number, block in enumerate(blocks) if _is_text(block)]
    if not kept:
        return list(blocks)
    first = kept[0]
    while first and (blocks[first - 1].tag in _HEADINGS or blocks[first - 1].main):
        first -= 1
    return list(blocks[first : kept[-1] + 1])


def _is_text(block: _Block) -> bool:
    ends = block.text[-1:] in ".!?:;。！？：；．…"
    return block.size >= LONG or block.items or block.tag in ("tr", "dd") or block.main or (ends and block.size >= LONG // 4)


def _written(blocks: Sequence[_Block]) -> str:
    return "\n\n".join("\n".join(block.text for block in group) for group in _groups(blocks)).strip()
