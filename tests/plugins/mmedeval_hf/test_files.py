"""Where models lie and what they consist of: folders, adapters and a stand-in for the hub, each fault one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mmedeval import MmedevalError
from mmedeval.model_files import find_model
from mmedeval_hf.backend import HFBackend

# peft asks transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def hf(path: Path | str, **arguments: str) -> HFBackend:
    return HFBackend(str(path), {"device": "cpu", **arguments})


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def sentence_of(action: Callable[[], object]) -> str:
    """The message of the `MmedevalError` that an action ends in; it must be one line."""
    with pytest.raises(MmedevalError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_code == 2
    return text


def edit_json(file: Path, **values: Any) -> None:
    content = {**json.loads(file.read_text(encoding="utf-8")), **values}
    file.write_text(json.dumps(content), encoding="utf-8")


def load(path: Path | str, **arguments: str) -> None:
    backend = hf(path, **arguments)
    backend.check(chat=False)
    _ = backend.tokenizer, backend.model


# --- folders that are no model ---


@pytest.mark.parametrize("name", ["{tmp}/nothing", "./nothing", "~/nothing-here", "~nobody-of-this-name/model", "a/b/c", "a\\b"])
def test_a_path_that_does_not_exist_is_one_sentence(name: str, tmp_path: Path) -> None:
    name = name.replace("{tmp}", str(tmp_path))
    text = sentence_of(lambda: hf(name).check(chat=False))
    assert name in text
    assert "does not exist" in text


def test_a_file_in_place_of_a_folder_is_one_sentence(tiny: Callable[..., Path]) -> None:
    file = tiny() / "model.safetensors"
    assert f"{file} is a file" in sentence_of(lambda: hf(file).check(chat=False))


@pytest.mark.parametrize(
    ("broken", "wanted"),
    [
        (lambda path: (path / "config.json").unlink(), "holds no config.json"),
        (lambda path: (path / "config.json").write_text("{broken"), "config.json cannot be read"),
        (lambda path: (path / "config.json").write_bytes(b"\xff\xfe{}"), "config.json cannot be read"),
        (lambda path: (path / "config.json").write_text("[]"), "config.json holds no JSON object"),
        (lambda path: (path / "model.safetensors").unlink(), "holds no weights"),
        (lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"), "pickle files"),
        (lambda path: (path / "tokenizer.json").write_text("{broken"), "tokenizer in"),
        (lambda path: [(path / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")], "tokenizer in"),
        (lambda path: os.truncate(path / "model.safetensors", 5000), "model in"),
        (lambda path: os.truncate(path / "model.safetensors", 4), "model in"),
        (
            lambda path: (path / "generation_config.json").write_text('{"eos_token_id": 1'),
            "generation_config.json cannot be read",
        ),
        (lambda path: (path / "tokenizer.json").write_text("[]"), "tokenizer in"),
        (
            lambda path: edit_json(path / "tokenizer.json", model={"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}),
            "out of vocabulary",
        ),
        (lambda path: edit_json(path / "tokenizer_config.json", tokenizer_class=5), "tokenizer in"),
        (lambda path: edit_json(path / "tokenizer_config.json", bos_token=5), "tokenizer in"),
        (lambda path: edit_json(path / "tokenizer_config.json", model_max_length="x"), "tokenizer in"),
        (lambda path: edit_json(path / "config.json", hidden_size="x"), "expected int, got str (value: 'x')"),
        (lambda path: edit_json(path / "config.json", num_attention_heads=0), "cannot be loaded"),
        (lambda path: edit_json(path / "config.json", dtype="os"), "cannot be loaded"),
        (lambda path: edit_json(path / "config.json", quantization_config=5), "cannot be loaded"),
        (lambda path: edit_json(path / "config.json", hidden_size=32), "have other sizes than its config.json says"),
        (lambda path: edit_json(path / "config.json", vocab_size=10**12), "have other sizes than its config.json says"),
        (lambda path: edit_json(path / "config.json", num_hidden_layers=10**9), "says 1,000,000,000 layers, its weights are 21"),
    ],
    ids=[
        *("no config", "torn config", "UTF-16 config", "list as config", "no weights", "pickled weights"),
        *("torn tokenizer", "no tokenizer", "torn weights", "torn header of weights", "torn generation config"),
        *("list as tokenizer", "tokenizer that does not hold together", "number as tokenizer class", "number as BOS"),
        *("text as tokenizer's length", "text as size", "no heads", "module as precision", "number as quantisation"),
        *("other sizes", "enormous vocabulary", "endless layers"),
    ],
)
def test_a_broken_model_folder_is_one_sentence_that_names_it(
    broken: Callable[[Path], object],
    wanted: str,
    tiny: Callable[..., Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = copy(tiny(), tmp_path / "model")
    broken(path)
    text = sentence_of(lambda: load(path))
    assert wanted in text
    assert str(path) in text
    # transformers would print a table of the weights, by the names that the file gives them.
    assert "REPORT" not in capfd.readouterr().err


def test_weights_that_the_model_does_not_use_are_told_in_the_record_and_in_no_table(
    tiny: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = copy(tiny(), tmp_path / "model")
    edit_json(path / "config.json", num_hidden_layers=1)
    backend = hf(path)
    _ = backend.model
    (warning,) = backend.runtime()["warnings"]
    assert warning.startswith("the weights hold 9 tensors that the model does not use (model.layers.1.")
    assert capfd.readouterr().err == ""


def test_a_checkpoint_that_lacks_a_weight_is_refused_instead_of_filled_with_noise(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    path = copy(tiny(), tmp_path / "model")
    weights = load_file(path / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.mlp.down_proj.weight" in sentence_of(lambda: load(path))


def test_a_shard_that_is_not_there_is_one_sentence(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(tiny()).save_pretrained(path, max_shard_size="200KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny() / name, path)
    load(path)
    shards = sorted(path.glob("*.safetensors"))
    assert len(shards) > 1
    shards[0].unlink()
    assert shards[0].name in sentence_of(lambda: load(path))


def test_pickled_weights_are_read_when_they_are_trusted(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path = copy(tiny(), tmp_path / "pickled")
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    assert "use_safetensors=false" in sentence_of(lambda: load(path))
    trusted = hf(path, use_safetensors="false")
    trusted.check(chat=False)
    assert torch.equal(trusted.model.lm_head.weight, hf(tiny()).model.lm_head.weight)
    assert "pytorch_model.bin" in trusted.describe()["files"]


def test_where_both_are_there_weights_that_cannot_run_code_are_read(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path = copy(tiny(), tmp_path / "both")
    torch.save(load_file(tiny(seed=1) / "model.safetensors"), path / "pytorch_model.bin")
    trusted = hf(path, use_safetensors="false")
    assert torch.equal(trusted.model.lm_head.weight, hf(tiny()).model.lm_head.weight)


def test_code_that_comes_with_a_model_does_not_run_unasked(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path, ran = copy(tiny(), tmp_path / "own"), tmp_path / "ran"
    edit_json(path / "config.json", model_type="own", auto_map={"AutoConfig": "configuration_own.OwnConfig"})
    code = f"from pathlib import Path\nPath({str(ran)!r}).touch()\nfrom transformers import LlamaConfig\n"
    (path / "configuration_own.py").write_text(f"{code}class OwnConfig(LlamaConfig):\n    model_type = 'own'\n", encoding="utf-8")
    assert "let it run with --model-arg trust_remote_code=true" in sentence_of(lambda: load(path))
    assert not ran.exists()
    # What would run is a part of what the model is.
    assert hf(path, trust_remote_code="true").fingerprint() != hf(path).fingerprint()


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_a_checkpoint_with_what_training_left_beside_it_loads_and_no_pickle_is_opened(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    path, sprung = copy(tiny(), tmp_path / "checkpoint-100"), tmp_path / "sprung"
    pickled = pickle.dumps(Trap(sprung))
    pickle.loads(pickled)  # noqa: S301  # the trap works
    sprung.unlink()
    left = [
        "optimizer.pt",
        "scheduler.pt",
        "scaler.pt",
        "rng_state.pth",
        "training_args.bin",
        "pytorch_model.bin",
        "optimizer.bin",
    ]
    adapter = save_adapter(tiny(), tmp_path / "adapter")
    for folder in (path, adapter):
        (folder / "trainer_state.json").write_text('{"global_step": 100}', encoding="utf-8")
        for name in [*left, "adapter_model.bin"]:
            (folder / name).write_bytes(pickled)
    load(path)
    load(adapter)
    assert hf(path).fingerprint() == hf(tiny()).fingerprint()
    assert not sprung.exists()


# --- fingerprints ---


def test_the_fingerprint_is_of_the_contents_and_not_of_the_place(tiny: Callable[..., Path], tmp_path: Path) -> None:
    path = copy(tiny(), tmp_path / "one")
    first = hf(path).fingerprint()
    (path / "README.md").write_text("about this model", encoding="utf-8")
    (path / "training_args.bin").write_bytes(b"not part of the model")
    assert hf(path.rename(tmp_path / "another name")).fingerprint() == first
    assert hf(path.parent / "another name", max_length="99", batch_size="1").fingerprint() == first
    assert hf(tiny(seed=1)).fingerprint() != first


def test_one_changed_bit_of_a_weight_or_one_new_key_changes_the_fingerprint(tiny: Callable[..., Path], tmp_path: Path) -> None:
    found = {hf(tiny()).fingerprint()}
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        path = copy(tiny(), tmp_path / name)
        content = json.loads((path / name).read_text(encoding="utf-8"))
        (path / name).write_text(json.dumps({**content, "new": 1}), encoding="utf-8")
        found.add(hf(path).fingerprint())
    path = copy(tiny(), tmp_path / "weights")
    weights = bytearray((path / "model.safetensors").read_bytes())
    weights[-3] ^= 1
    (path / "model.safetensors").write_bytes(weights)
    found.add(hf(path).fingerprint())
    assert len(found) == 6


def test_the_fingerprint_and_the_description_are_known_without_loading(tiny: Callable[..., Path]) -> None:
    backend = hf(tiny())
    before = (backend.fingerprint(), backend.describe(), backend.runtime())
    assert "model" not in vars(backend)
    assert before[1]["architecture"] == ["LlamaForCausalLM"]
    assert before[2] == {}
    about = before[1]["files"]["model.safetensors"]
    content = (tiny() / "model.safetensors").read_bytes()
    assert about == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert str(tiny()) not in json.dumps(before[1])
    _ = backend.model
    assert (backend.fingerprint(), backend.describe()) == before[:2]


# --- adapters ---


def save_adapter(base: Path, folder: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


def test_an_adapters_fingerprint_follows_base_and_weights_but_no_folders_name(tiny: Callable[..., Path], tmp_path: Path) -> None:
    base = copy(tiny(), tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter")
    first = hf(adapter).fingerprint()
    assert hf(adapter, batch_size="1").fingerprint() == hf(base, adapter=str(adapter)).fingerprint() == first
    assert hf(copy(adapter, tmp_path / "renamed")).fingerprint() == first

    # The same base elsewhere: the adapter names its new place, and is the same adapter.
    moved = copy(base, tmp_path / "moved")
    followed = copy(adapter, tmp_path / "followed")
    content = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert content["base_model_name_or_path"] == str(base)
    content["base_model_name_or_path"] = str(moved)
    (followed / "adapter_config.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    assert hf(followed).fingerprint() == first

    weights = load_file(adapter / "adapter_model.safetensors")
    changed = copy(adapter, tmp_path / "changed")
    save_file({name: weight * 1.001 for name, weight in weights.items()}, changed / "adapter_model.safetensors")
    assert hf(changed).fingerprint() != first
    other = hf(tiny(seed=1), adapter=str(adapter))
    assert other.fingerprint() not in (first, hf(tiny(seed=1)).fingerprint())
    # What scales the update is part of what it is.
    content["lora_alpha"] = 99
    (followed / "adapter_config.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    assert hf(followed).fingerprint() != first


def test_what_cannot_be_an_adapter_is_one_sentence(tiny: Callable[..., Path], tmp_path: Path) -> None:
    base = copy(tiny(), tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter")
    assert "is no adapter of peft" in sentence_of(lambda: load(base, adapter=str(base)))
    assert "is an adapter itself" in sentence_of(lambda: load(adapter, adapter=str(adapter)))
    assert "does not exist" in sentence_of(lambda: load(base, adapter=str(tmp_path / "nothing")))
    torn = copy(adapter, tmp_path / "torn")
    os.truncate(torn / "adapter_model.safetensors", 100)
    assert str(torn) in sentence_of(lambda: load(torn))
    (torn / "adapter_model.safetensors").unlink()
    assert "no adapter_model.safetensors" in sentence_of(lambda: load(torn))
    (torn / "adapter_config.json").write_text("{", encoding="utf-8")
    shutil.copy(adapter / "adapter_model.safetensors", torn)
    assert "adapter_config.json cannot be read" in sentence_of(lambda: load(torn))
    (torn / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert "names no base model" in sentence_of(lambda: load(torn))
    shutil.rmtree(base)
    assert f"{base} does not exist" in sentence_of(lambda: load(adapter))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"r": "x"}, "not supported between instances of 'str' and 'int'"),
        ({"r": 5}, "size mismatch"),
        ({"target_modules": "("}, "unterminated subpattern"),
        ({"rank_pattern": []}, "has no attribute 'keys'"),
        ({"layer_replication": [[0, 10**7]]}, "out of range"),
        ({"peft_type": "PROMPT_TUNING"}, "does not fit its base model"),
    ],
)
def test_a_damaged_adapter_configuration_is_one_sentence(
    settings: dict[str, Any], told: str, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    adapter = save_adapter(tiny(), tmp_path / "adapter")
    edit_json(adapter / "adapter_config.json", **settings)
    text = sentence_of(lambda: load(adapter))
    assert told in text
    assert str(adapter) in text


def test_an_adapter_begun_by_chance_is_refused_and_one_begun_exactly_is_not(tiny: Callable[..., Path], tmp_path: Path) -> None:
    adapter = save_adapter(tiny(), tmp_path / "adapter")
    edit_json(adapter / "adapter_config.json", init_lora_weights="pissa_niter_4")
    assert "random decomposition" in sentence_of(lambda: hf(adapter).check(chat=False))
    edit_json(adapter / "adapter_config.json", init_lora_weights="pissa")
    hf(adapter).check(chat=False)


def test_an_adapter_is_put_on_the_base_that_was_named_without_asking_for_the_one_that_it_names(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.utils import save_and_load

    def asked(*_: Any) -> None:
        raise AssertionError("the hub was asked")

    adapter = save_adapter(tiny(), tmp_path / "adapter")
    edit_json(adapter / "adapter_config.json", base_model_name_or_path="org/somewhere")
    monkeypatch.setattr(save_and_load, "check_file_exists_on_hf_hub", asked)
    load(tiny(), adapter=str(adapter))


def test_an_adapter_that_does_not_fit_its_base_is_refused(tiny: Callable[..., Path], tmp_path: Path) -> None:
    adapter = save_adapter(tiny(), tmp_path / "adapter")
    wider = tiny(config={"hidden_size": 32})
    assert str(adapter) in sentence_of(lambda: load(wider, adapter=str(adapter)))
    # Another architecture has none of the modules that the adapter changes.
    assert str(adapter) in sentence_of(lambda: load(tiny("gpt2"), adapter=str(adapter)))


@pytest.mark.parametrize("kept", ["layers.0", "nothing"])
def test_an_adapter_whose_weights_do_not_all_arrive_is_refused_instead_of_scored_as_its_base(
    kept: str, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    adapter = save_adapter(tiny(), tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    # As under a wrapper at training time: names that the base model does not have.
    renamed = {name if kept in name else name.replace("layers", "wrapped.layers"): weight for name, weight in weights.items()}
    save_file(renamed, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    assert str(adapter) in sentence_of(lambda: load(adapter))


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_that_lacks_a_tensor_is_refused_where_warnings_are_nothing_to_stop_for(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    adapter = save_adapter(tiny(), tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layers.1" not in name}
    assert len(kept) == 2
    save_file(kept, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    assert "Found missing adapter keys" in sentence_of(lambda: load(adapter))


# --- the hub ---


@dataclass
class Hub:
    """A stand-in for the hub: models by name, each file a content, at one commit."""

    url: str
    models: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    @staticmethod
    def commit(name: str) -> str:
        return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()


@pytest.fixture
def hub() -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def do_GET(self) -> None:
            path, _, _ = self.path.partition("?")
            parts = path.strip("/").split("/")
            name = "/".join(parts[2:4] if parts[:2] == ["api", "models"] else parts[:2])
            files, commit = hub.models.get(name), hub.commit(name)
            if files is None:
                self.answer(404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            elif parts[:2] == ["api", "models"] and parts[4] == "revision":
                if parts[5] not in ("main", commit):
                    self.answer(404, b"{}", X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
                    return
                about = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]}
                self.answer(200, json.dumps(about).encode(), Content_Type="application/json")
            elif parts[:2] == ["api", "models"] and parts[4] == "tree":
                tree = [
                    {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha256(content).hexdigest()[:40]}
                    for file, content in files.items()
                ]
                self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
            else:
                assert parts[2:4] == ["resolve", commit], path
                file = "/".join(parts[4:])
                content = files[file]
                if self.command == "GET":
                    hub.fetched.append(file)
                etag = f'"{hashlib.sha256(content).hexdigest()[:40]}"'
                self.answer(200, content, ETag=etag, X_Repo_Commit=commit, Content_Type="application/octet-stream")

        do_HEAD = do_GET

        def do_CONNECT(self) -> None:
            self.answer(403, b"")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub = Hub(url=f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


def on_the_hub(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


FIND = """
import json, sys
from mmedeval import ModelError
from mmedeval.model_files import find_model
name, settings = sys.argv[1], json.loads(sys.argv[2])
try:
    folder = find_model(name, **{"revision": None, "safe_only": True, "code": False, **settings})
    folder.check_model()
    answer = {"path": str(folder.path), "fingerprint": folder.fingerprint, "files": sorted(folder.files)}
except ModelError as error:
    answer = {"error": str(error)}
answer["heavy"] = sorted({"torch", "transformers"} & set(sys.modules))
print(json.dumps(answer))
"""


def find_in_new_process(name: str, home: Path, environment: Mapping[str, str], **settings: Any) -> dict[str, Any]:
    """What `find_model` says where the hub's client has read these environment variables."""
    kept = {key: value for key, value in os.environ.items() if not key.upper().endswith("_PROXY") and not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FIND, name, json.dumps(settings)],
        env={**kept, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        cwd=home.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["heavy"] == []
    assert "\n" not in answer.get("error", "")
    return answer


def test_a_model_of_the_hub_is_fetched_once_and_is_the_same_as_from_a_folder(
    hub: Hub, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    extra = {
        "README.md": b"about",
        "consolidated.safetensors": b"the same again",
        "modeling_own.py": b"raise SystemExit",
        "pytorch_model.bin": b"pickle",
        "pytorch_model.ot": b"x",
    }
    hub.models["org/model"] = {**on_the_hub(tiny()), **extra}
    wanted = find_model(str(tiny()), revision=None, safe_only=True, code=False)
    online = {"HF_ENDPOINT": hub.url}
    first = find_in_new_process("org/model", tmp_path / "home", online)
    assert first["fingerprint"] == wanted.fingerprint
    assert first["files"] == sorted(hub.fetched) == sorted(wanted.files)

    hub.fetched.clear()
    again = find_in_new_process("org/model", tmp_path / "home", online, revision=hub.commit("org/model"))
    unplugged = find_in_new_process("org/model", tmp_path / "home", {"HF_HUB_OFFLINE": "1"})
    assert first == again == unplugged
    assert hub.fetched == []
    # Code and pickled weights come only when they are asked for.
    trusting = find_in_new_process("org/model", tmp_path / "home", online, code=True, safe_only=False)
    assert sorted(hub.fetched) == ["modeling_own.py", "pytorch_model.bin"]
    assert trusting["fingerprint"] != first["fingerprint"]
    load(first["path"])


def test_what_the_hub_does_not_have_is_one_sentence(hub: Hub, tiny: Callable[..., Path], tmp_path: Path) -> None:
    hub.models["org/model"] = on_the_hub(tiny())
    online = {"HF_ENDPOINT": hub.url}
    home = tmp_path / "home"
    assert "neither a folder here nor on the hub" in find_in_new_process("org/mdoel", home, online)["error"]
    missing = find_in_new_process("org/model", home, online, revision="v9")["error"]
    assert "at revision 'v9'" in missing
    assert "neither a folder here nor a valid hub name" in find_in_new_process("-not a name-", home, online)["error"]


def test_a_hub_model_with_only_pickled_weights_says_so(hub: Hub, tiny: Callable[..., Path], tmp_path: Path) -> None:
    files = on_the_hub(tiny())
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    hub.models["org/old"] = files
    error = find_in_new_process("org/old", tmp_path / "home", {"HF_ENDPOINT": hub.url})["error"]
    assert "use_safetensors=false" in error


@pytest.mark.parametrize(
    "environment",
    [
        {"HF_HUB_OFFLINE": "1"},
        {"HF_ENDPOINT": "http://127.0.0.1:{closed}"},
        {"HF_ENDPOINT": "http://host.invalid"},
        {"HF_ENDPOINT": "https://host.invalid", "HTTPS_PROXY": "{hub}"},
    ],
    ids=["offline", "refused", "no such host", "a proxy that says no"],
)
def test_a_hub_that_cannot_be_reached_is_one_sentence(environment: dict[str, str], hub: Hub, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    environment = {key: value.replace("{closed}", str(closed)).replace("{hub}", hub.url) for key, value in environment.items()}
    answer = find_in_new_process("org/model", tmp_path / "home", environment)
    assert "'org/model'" in answer["error"]
    assert "could not be fetched from the hub" in answer["error"]


def test_an_adapter_on_the_hub_brings_its_base_along(hub: Hub, tiny: Callable[..., Path], tmp_path: Path) -> None:
    base = copy(tiny(), tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter")
    content = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    content["base_model_name_or_path"] = "org/base"
    (adapter / "adapter_config.json").write_text(json.dumps(content), encoding="utf-8")
    hub.models["org/base"], hub.models["org/adapter"] = on_the_hub(base), on_the_hub(adapter)
    script = (
        "import sys; from mmedeval_hf.backend import HFBackend; b = HFBackend('org/adapter', {'device': 'cpu'}); "
        "b.check(chat=True); print(b.fingerprint(), type(b.model).__name__)"
    )
    kept = {key: value for key, value in os.environ.items() if not key.upper().endswith("_PROXY")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**kept, "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [hf(base, adapter=str(adapter)).fingerprint(), "PeftModelForCausalLM"]
