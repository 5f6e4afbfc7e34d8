"""Where the data come from: a folder, the zip in place, the environment, the hub; and what is said where they do not."""

import http.server
import os
import random
import struct
import subprocess
import sys
import sysconfig
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmedeval import DataError, MissingPackageError, TaskOptions
from mmedeval.catalog import Catalog
from mmedeval.host import make_host
from mmedeval_mmedbench import LANGUAGES, data
from mmedeval_mmedbench.data import FolderSource, Source, ZipSource, embedded, find_source, locate

COMMAND = Path(sysconfig.get_path("scripts")) / "mmedeval"
MINI = Path(data.__file__).parent / "mini"
FILES = [f"{folder}/{name}.jsonl" for folder in ("Train", "Test") for name in LANGUAGES.values()]


def make_zip(path: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def mini_members(prefix: str = "") -> dict[str, bytes]:
    return {prefix + name: (MINI / name).read_bytes() for name in FILES}


def everything(source: Source) -> dict[str, bytes]:
    return {
        f"{folder}/{name}.jsonl": source.read(split, name)[1]
        for split, folder in (("train", "Train"), ("test", "Test"))
        for name in LANGUAGES.values()
    }


# The zip


@pytest.mark.parametrize("prefix", ["", "MMedBench/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_zip_holds_the_same_as_its_folder_with_and_without_a_top_folder(
    tmp_path: Path, prefix: str, compression: int
) -> None:
    path = make_zip(tmp_path / "MMedBench.zip", mini_members(prefix), compression)
    before = sorted(tmp_path.rglob("*"))
    assert everything(ZipSource(path)) == everything(FolderSource(MINI)) == everything(embedded())
    assert sorted(tmp_path.rglob("*")) == before, "nothing is unpacked"
    assert ZipSource(path).read("test", "Japanese")[0] == f"{path}!{prefix}Test/Japanese.jsonl"


def test_what_computers_add_to_a_zip_is_passed_over(tmp_path: Path) -> None:
    noise = {
        "__MACOSX/Test/._English.jsonl": b"noise",
        "__MACOSX/Test/English.jsonl": b"noise",
        "MMedBench/Test/": b"",
        "MMedBench/README.md": b"noise",
        "MMedBench/.DS_Store": b"noise",
        "MMedBench/old/backup/Test/English.jsonl": b"noise",
    }
    path = make_zip(tmp_path / "x.zip", {**noise, "MMedBench/Test/English.jsonl": b"the data"})
    assert ZipSource(path).read("test", "English")[1] == b"the data"


@pytest.mark.parametrize("name", [f"{top}Test/English.jsonl" for top in ("../", "a/../", "Test/../", "/", "/a/")])
def test_names_that_climb_or_are_absolute_are_never_read(tmp_path: Path, name: str) -> None:
    path = make_zip(tmp_path / "evil.zip", {name: b"evil"})
    with pytest.raises(DataError, match=r"holds 0 files Test/English\.jsonl"):
        ZipSource(path).read("test", "English")
    path = make_zip(tmp_path / "both.zip", {name: b"evil", "Test/English.jsonl": b"good"})
    assert ZipSource(path).read("test", "English")[1] == b"good"


def test_two_files_that_could_be_meant_are_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "two.zip", {"Test/English.jsonl": b"1", "copy/Test/English.jsonl": b"2"})
    with pytest.raises(DataError, match=r"holds 2 files Test/English\.jsonl"):
        ZipSource(path).read("test", "English")


def test_a_member_that_unpacks_beyond_the_bound_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "MAX_MEMBER_BYTES", 2**20)
    path = make_zip(tmp_path / "bomb.zip", {"Test/English.jsonl": bytes(2**26), "Test/French.jsonl": bytes(2**20)})
    assert path.stat().st_size < 100_000
    assert len(ZipSource(path).read("test", "French")[1]) == 2**20
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"Test/English\.jsonl unpacks to more than 1 MiB"):
            ZipSource(path).read("test", "English")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_member_that_understates_its_size_is_not_trusted(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "liar.zip", {"Test/English.jsonl": b" " * 100_000})
    # The size stands in the local header and in the central directory.
    content = path.read_bytes().replace(struct.pack("<L", 100_000), struct.pack("<L", 10))
    path.write_bytes(content)
    with pytest.raises(DataError, match="no readable zip"):
        ZipSource(path).read("test", "English")


def harmed(content: bytes, draw: random.Random) -> bytes:
    """The archive cut short, or with some bytes changed, at its ends more often than in between."""
    if draw.random() < 0.1:
        return content[: draw.randrange(len(content))]
    at = draw.choice([draw.randrange(60), len(content) - 1 - draw.randrange(110), draw.randrange(len(content))])
    noise = draw.randbytes(draw.choice([1, 1, 4, 50]))
    return (content[:at] + noise + content[at + len(noise) :])[: len(content)]


@pytest.mark.parametrize("method", ["DEFLATED", "BZIP2", "LZMA", "STORED"])
def test_a_zip_harmed_anywhere_is_one_sentence_or_the_same_data(tmp_path: Path, method: str) -> None:
    content = (MINI / "Test" / "English.jsonl").read_bytes()
    path = make_zip(tmp_path / "MMedBench.zip", {"Test/English.jsonl": content}, getattr(zipfile, f"ZIP_{method}"))
    whole, draw = path.read_bytes(), random.Random(0)
    told = []
    for _ in range(200):
        path.write_bytes(harmed(whole, draw))
        try:
            assert ZipSource(path).read("test", "English")[1] == content
        except DataError as error:
            told.append(str(error))
    assert len(told) > 100
    assert all(str(path) in message for message in told)


def encrypted(content: bytes) -> bytes:
    local, central = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")
    flagged = bytearray(content)
    flagged[local + 6] |= 1
    flagged[central + 8] |= 1
    return bytes(flagged)


def of_an_unknown_compression(content: bytes) -> bytes:
    local, central = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")
    changed = bytearray(content)
    changed[local + 8] = changed[central + 10] = 97
    return bytes(changed)


@pytest.mark.parametrize(
    "harm",
    [encrypted, of_an_unknown_compression, lambda _: b"", lambda _: b"<html>Not found</html>"],
    ids=["encrypted", "unknown compression", "empty", "a web page"],
)
def test_what_is_no_readable_zip_is_told_to_be_fetched_again(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    path = make_zip(tmp_path / "MMedBench.zip", mini_members())
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(DataError, match=r"is no readable zip archive .*; fetch MMedBench\.zip again") as caught:
        ZipSource(path).read("train", "English")
    assert str(path) in str(caught.value)


# The folder


def test_a_language_that_the_folder_lacks_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "Test").mkdir()
    for name in ("English", "French"):
        (tmp_path / "Test" / f"{name}.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match=r"no Test split in Japanese \(there: English, French\).*--languages"):
        FolderSource(tmp_path).read("test", "Japanese")
    with pytest.raises(DataError, match=r"no Train split in Japanese \(there: nothing\)"):
        FolderSource(tmp_path).read("train", "Japanese")


def test_a_folder_where_a_file_should_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "Test" / "English.jsonl").mkdir(parents=True)
    with pytest.raises(DataError, match=r"English\.jsonl cannot be read: "):
        FolderSource(tmp_path).read("test", "English")


# Which of them


def test_data_dir_may_be_the_folder_the_zip_or_the_folder_with_the_zip(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "zipped" / "MMedBench.zip", mini_members("MMedBench/"))
    sources = [find_source(MINI), find_source(path), find_source(path.parent)]
    assert [source.label for source in sources] == ["local folder", "local zip", "local zip"]
    assert all(everything(source) == everything(embedded()) for source in sources)


def test_the_variable_names_the_data_and_data_dir_wins_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_zip(tmp_path / "MMedBench.zip", mini_members())
    monkeypatch.setenv("MMEDBENCH_DIR", str(path))
    assert find_source(None).label == "local zip"
    assert find_source(MINI).label == "local folder"
    (spec,) = Catalog(make_host(block=[])).select_tasks(["mmedbench_mini_ja"])
    assert spec.load(TaskOptions()).source == "embedded", "the small set is always its own"
    monkeypatch.setenv("MMEDBENCH_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere does not exist"):
        find_source(None)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_zip(tmp_path / "data" / "MMedBench.zip", mini_members())
    assert everything(find_source(Path("~/data"))) == everything(embedded())


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_place_without_data_is_told_what_to_give(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"--data-dir or MMEDBENCH_DIR; the tasks mmedbench_mini_\* need no data") as caught:
        find_source(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_the_place_of_the_data_is_told_without_fetching_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMEDBENCH_DIR", raising=False)
    assert locate(None) == "not given; would be fetched from the hub (Henrychur/MMedBench)"
    assert locate(MINI) == f"local folder: {MINI}"
    with pytest.raises(DataError, match="does not exist"):
        locate(tmp_path / "nowhere")


def test_the_source_in_a_record_is_no_path(tmp_path: Path) -> None:
    for source in (FolderSource(tmp_path), ZipSource(tmp_path / "MMedBench.zip"), embedded()):
        assert str(tmp_path) not in source.label
        assert "/" not in source.label


# The hub


def test_without_the_hub_client_the_line_that_brings_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMEDBENCH_DIR", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackageError, match=r"needs huggingface_hub.*pip install 'mmedeval\[hub\]'"):
        find_source(None)


PINNED = "d817c67d0bca216e63ea784fcf8a642c57bc372b"
FILE = f"/datasets/Henrychur/MMedBench/resolve/{PINNED}/MMedBench.zip"


@contextmanager
def hub(content: bytes, *, torn_at: int | None = None) -> Iterator[tuple[str, Sequence[tuple[str, str]]]]:
    """A stand-in for the hub that has one file. Yields its address and what is asked of it."""
    asked: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(content[:torn_at])

        def do_CONNECT(self) -> None:  # as a proxy that lets nobody through
            asked.append((self.command, self.path))
            self.send_error(403)

        def _answer(self, body: bytes) -> None:
            asked.append((self.command, self.path))
            found = self.path == FILE
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(content) if found else 0))
            if found:
                self.send_header("ETag", '"0123456789abcdef"')
                self.send_header("X-Repo-Commit", PINNED)
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if found:
                self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def run_with(folder: Path, settings: Mapping[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    """Evaluates the first option on Japanese, in a process of its own with an empty cache and these settings."""
    env = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    env = {name: value for name, value in env.items() if not name.startswith("HF_") and name != "MMEDBENCH_DIR"}
    command = [str(COMMAND), "run", "-q", "--model", "baseline:first", "--tasks", "mmedbench_ja", "--limit", "3", "--json", *more]
    return subprocess.run(
        command,
        cwd=folder,
        env={**env, "HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", **settings},
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )


def test_the_zip_of_the_pinned_revision_is_fetched_once_and_read_in_place(tmp_path: Path) -> None:
    content = make_zip(tmp_path / "made.zip", mini_members("MMedBench/")).read_bytes()
    with hub(content) as (address, asked):
        first = run_with(tmp_path, {"HF_ENDPOINT": address}, "--out", "first")
        assert first.returncode == 0, first.stderr
        assert ("GET", FILE) in asked
    assert f'"source": "hub: Henrychur/MMedBench at {PINNED[:12]}"' in first.stdout
    # The hub is gone, and the cache has it.
    again = run_with(tmp_path, {"HF_HUB_OFFLINE": "1"}, "--out", "second")
    assert again.returncode == 0, again.stderr
    assert str(tmp_path) not in again.stdout.replace(str(tmp_path / "second"), "")


def the_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a user reads where the data cannot be had."""
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.stderr.splitlines()[-1] == line
    assert "could not be fetched from the hub (Henrychur/MMedBench)" in line
    assert "--data-dir or MMEDBENCH_DIR; the tasks mmedbench_mini_* need no data" in line
    return line


def test_without_a_network_there_is_one_sentence(tmp_path: Path) -> None:
    done = run_with(tmp_path, {"HF_HUB_OFFLINE": "1"})
    assert done.stderr == f"{the_sentence(done)}\n"
    assert done.stdout == ""


def test_a_hub_that_does_not_have_the_file_is_one_sentence(tmp_path: Path) -> None:
    with hub(b"") as (address, _):
        the_sentence(run_with(tmp_path, {"HF_ENDPOINT": f"{address}/elsewhere"}))


def test_a_download_that_breaks_off_is_one_sentence(tmp_path: Path) -> None:
    content = make_zip(tmp_path / "made.zip", mini_members()).read_bytes()
    with hub(content, torn_at=1000) as (address, _):
        the_sentence(run_with(tmp_path, {"HF_ENDPOINT": address}))


def test_a_proxy_that_lets_nobody_through_is_one_sentence(tmp_path: Path) -> None:
    with hub(b"") as (address, asked):
        done = run_with(tmp_path, {"HTTPS_PROXY": address})
        assert asked == [("CONNECT", "huggingface.co:443")] * len(asked)
        assert asked
    the_sentence(done)
