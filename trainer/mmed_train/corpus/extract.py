"""Text out of PDF files and HTML pages: the door to it."""

from __future__ import annotations

from mmed_train.corpus.html import extract_html
from mmed_train.corpus.ocr import Ocr, Picture, Tesseract
from mmed_train.corpus.pages import Extracted
from mmed_train.corpus.pdf import PdfProcess, extract_pdf

__all__ = ["Extracted", "Ocr", "PdfProcess", "Picture", "Tesseract", "extract_html", "extract_pdf"]
