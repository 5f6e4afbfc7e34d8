"""What a training step needs of memory, found by doing the step with tensors that have a shape and no contents.

No formula of activations holds for every architecture, attention, adapter and way of checkpointing. So the model that would be
trained is made of PyTorch's fake tensors, goes through a forward and a backward pass as the training does them, and its optimizer
makes a step; every storage is counted from when an operation makes it until nothing holds it any more. What a kernel needs while
it runs is not seen, nor what an allocator keeps in reserve.
"""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from mmed_train.training.model import computes_all_logits, head_sees, load_model
from mmed_train.training.recipe import Recipe
from mmedeval.text import first_line

Kind = Literal["gradients", "copies", "other"]
FLOAT32: Final = 4
# What a fake tensor cannot do, and what libraries make of it.
FAKE_ERRORS: Final = (RuntimeError, TypeError, ValueError, AssertionError, ImportError)
# NF4 with double quantisation (Dettmers et al. 2023, QLoRA): half a byte each, a byte per 64, and a float32 per 64 x 256.
FOUR_BITS: Final = 1 / 2 + 1 / 64 + 4 / (64 * 256)


class CannotTellError(Exception):
    """An optimizer's step cannot be done with fake tensors."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The largest forward pass: rows of `length` tokens, of which `predicted` in all are compared with a target.

    `packed`: documents in a row do not see each other.
    """

    rows: int
    length: int
    predicted: int
    packed: bool


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Bytes beside weights and optimizer state at a moment: gradients of weights, copies of weights in the type that is computed
    in, and all else, which is mostly activations."""

    gradients: int = 0
    copies: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        return self.gradients + self.copies + self.other


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that one device needs which holds all by itself, and what sharing out must know.

    `weights` with buffers, `gradients` of all that is trained, `optimizer` its state. `passing` is the moment of the passes at
    which most is needed, `None` where `why` tells that they cannot be done; `stepping` is what the optimizer needs for a moment,
    beside its state. `block` is the largest part that is shared out as a whole, `root` what is in no such part; each as all
    parameters and those that are trained.
    """

    parameters: int
    trained: int
    weights: int
    gradients: int
    optimizer: int
    passing: Moment | None
    stepping: int
    block: tuple[int, int]
    root: tuple[int, int]
    why: str = ""


def measure(
    recipe: Recipe,
    batch: Batch,
    *,
    bf16: bool,
    gpu: bool,
    make_optimizer: Callable[[Any], tuple[type[torch.optim.Optimizer], dict[str, Any]]],
) -> Footprint:
    """What a recipe whose model starts from a config needs. Raises `CannotTellError` for an optimizer that cannot be tried.

    `make_optimizer` maps the model to the optimizer's class and its arguments.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    fused = recipe.model.attention not in ("", "eager", "sdpa")
    four_bits = recipe.adapter.kind == "qlora"
    # Kernels of other packages keep what sdpa's do where it needs no mask.
    told = replace(recipe.model, attention="sdpa" if fused else recipe.model.attention)
    plain = replace(recipe, model=told, adapter=replace(recipe.adapter, kind="lora") if four_bits else recipe.adapter)
    with torch.device("meta"):
        model = load_model(plain, seed=recipe.train.seed)
        sizes = _sizes(model)
        if four_bits:
            _quantise(model)
    _to_fake(model, fake)
    model.train()
    try:
        optimizer, state, stepping = _step(model, fake, gpu=gpu, make_optimizer=make_optimizer)
    except FAKE_ERRORS as error:
        raise CannotTellError(first_line(error)) from error
    if recipe.train.accumulate == 1:
        optimizer.zero_grad()
    most: Moment | None = None
    why = ""
    try:
        known = [*model.parameters(), *model.buffers(), *state, *(p.grad for p in model.parameters() if p.grad is not None)]
        with _silent(), _Ledger(known, masters=model.parameters()) as ledger, ledger.gradients_of(model):
            _pass(model, replace(batch, packed=batch.packed and not fused), recipe, fake, bf16=bf16, gpu=gpu)
        most = ledger.most
    except FAKE_ERRORS as error:
        why = first_line(error)
    gradients = sizes["trained"] * FLOAT32
    if most is not None and recipe.train.accumulate > 1:
        most = replace(most, gradients=most.gradients + gradients)
    return Footprint(
        parameters=sizes["all"],
        trained=sizes["trained"],
        weights=bytes_of([*model.parameters(), *model.buffers()]),
        gradients=gradients,
        optimizer=bytes_of(state),
        passing=most,
        stepping=stepping,
        block=sizes["block"],
        root=sizes["root"],
        why=why,
    )


@contextmanager
def _silent() -> Iterator[None]:
    """Within, what fake tensors cannot do is not told at length on the terminal, too."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _to_fake(model: Any, fake: FakeTensorMode) -> None:
    """Tensors of the device "meta" become fake ones of the CPU, where there is an autocast and kernels like those of a GPU."""
    known: dict[int, torch.Tensor] = {}
    with fake:
        for module in model.modules():
            for name, old in module._parameters.items():
                if old is not None:
                    new = torch.nn.Parameter(torch.empty(old.shape, dtype=old.dtype), requires_grad=old.requires_grad)
                    module._parameters[name] = known.setdefault(id(old), new)
            for name, old in module._buffers.items():
                if old is not None:
                    module._buffers[name] = known.setdefault(id(old), torch.empty(old.shape, dtype=old.dtype))


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """The bytes of these tensors' storages, each counted once."""
    return sum({storage: storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}.values())


def _step(
    model: Any, fake: FakeTensorMode, *, gpu: bool, make_optimizer: Callable[..., Any]
) -> tuple[torch.optim.Optimizer, Sequence[torch.Tensor], int]:
    """The optimizer after its steps, its state, and the bytes that a step needs beside it. All gradients are there."""
    with fake:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
    kind, settings = make_optimizer(model)
    optimizer = kind([parameter for parameter in model.parameters() if parameter.requires_grad], **settings)
    for group in optimizer.param_groups:
        if gpu and not group.get("fused") and group.get("foreach", False) is None:
            # What torch chooses on a GPU: all tensors at once, with temporaries as large as all of them.
            group["foreach"] = True
    # Not within the mode: the state's counts of steps must be numbers.
    optimizer.step()
    state = [tensor for each in optimizer.state.values() for tensor in tree_iter(each) if isinstance(tensor, torch.Tensor)]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    with _Ledger([*model.parameters(), *state, *gradients]) as ledger:
        optimizer.step()
    return optimizer, state, ledger.most.total


def _pass(model: Any, batch: Batch, recipe: Recipe, fake: FakeTensorMode, *, bf16: bool, gpu: bool) -> None:
    """A forward and a backward pass, as the training computes them."""
    packed = batch.packed or model.config._attn_implementation == "eager"
    with ExitStack() as stack:
        if gpu:
            stack.enter_context(_AttentionOfGpus())
        # transformers gives no mask to rows that need none, for which it must see the positions; eager attention always has one.
        if packed:
            stack.enter_context(fake)
        ids = torch.zeros(batch.rows, batch.length, dtype=torch.long)
        positions = torch.arange(batch.length).expand(batch.rows, -1)
        wanted = torch.arange(_logits(model, batch, recipe))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16), head_sees(model, wanted):
            logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        # As accelerate does it.
        logits = logits.float()
        loss = cross_entropy(logits[0], torch.zeros(len(wanted), dtype=torch.long), reduction="sum")
        del logits
        loss.backward()


def _logits(model: Any, batch: Batch, recipe: Recipe) -> int:
    """For how many tokens logits are in memory at once."""
    tokens = batch.rows * batch.length
    if recipe.model.liger:
        # Its loss goes over the tokens in chunks, of as many logits as there are numbers in the last layer's output.
        vocabulary, hidden = model.get_output_embeddings().weight.shape
        return int(min(tokens, max(1, tokens * hidden // vocabulary)))
    return tokens if computes_all_logits(recipe) else min(tokens, batch.predicted)


@dataclass(slots=True)
class _Entry:
    kind: Kind
    size: int


class _Ledger(TorchDispatchMode):
    """Within, the storages that operations make are counted while they live. Those of the `known` tensors are left out."""

    def __init__(self, known: Iterable[torch.Tensor], *, masters: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.live: Counter[Kind] = Counter()
        self.most = Moment()
        self._entries = weakref.WeakKeyDictionary[torch.UntypedStorage, _Entry]()
        for tensor in known:
            self._entries[tensor.untyped_storage()] = _Entry("other", 0)
        self._masters = weakref.WeakSet(tensor.untyped_storage() for tensor in masters)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self._entries:
                copies = func is torch.ops.aten._to_copy.default and args[0].untyped_storage() in self._masters
                self._add(storage, "copies" if copies else "other")
        return made

    def _add(self, storage: torch.UntypedStorage, kind: Kind) -> None:
        entry = self._entries[storage] = _Entry(kind, storage.nbytes())
        weakref.finalize(storage, self._remove, entry).atexit = False
        self.live[kind] += entry.size
        if self.live.total() > self.most.total:
            self.most = Moment(gradients=self.live["gradients"], copies=self.live["copies"], other=self.live["other"])

    def _remove(self, entry: _Entry) -> None:
        self.live[entry.kind] -= entry.size

    @contextmanager
    def gradients_of(self, model: Any) -> Iterator[None]:
        """Within, gradients that weights are given are counted as such."""

        def given(parameter: torch.Tensor) -> None:
            assert parameter.grad is not None
            entry = self._entries[parameter.grad.untyped_storage()]
            self._remove(entry)
            entry.kind = "gradients"
            self.live["gradients"] += entry.size

        handles = [each.register_post_accumulate_grad_hook(given) for each in model.parameters() if each.requires_grad]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _sizes(model: Any) -> dict[str, Any]:
    """Parameters in all, of the largest block that FSDP shares out as a whole, and of what is in none."""

    def count(part: Any) -> tuple[int, int]:
        each = {id(p): (p.numel(), p.numel() * p.requires_grad) for p in part.parameters()}.values()
        return sum(size for size, _ in each), sum(trained for _, trained in each)

    names = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    blocks = [count(module) for module in model.modules() if type(module).__name__ in names]
    every, trained = count(model)
    root = (every - sum(block[0] for block in blocks), trained - sum(block[1] for block in blocks))
    return {"all": every, "trained": trained, "block": max(blocks, default=(0, 0)), "root": root}


class _AttentionOfGpus(TorchFunctionMode):
    """Within, dropout in attention needs no memory: the kernels of GPUs draw it anew, where the CPU's keeps all weights."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        told = dict(kwargs or {})
        if func is torch.nn.functional.scaled_dot_product_attention:
            told["dropout_p"] = 0.0
        return func(*args, **told)


class _FourBitProduct(torch.autograd.Function):
    """The product with a matrix in 4 bits as bitsandbytes computes it: unpacked for the moment, also for the backward pass."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, outputs: int) -> torch.Tensor:
        ctx.shape = (outputs, rows.shape[-1])
        return rows @ rows.new_empty(ctx.shape).t()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grad,) = grads
        return grad @ grad.new_empty(ctx.shape), None


class _FourBits(torch.nn.Module):
    """In place of a linear layer."""

    def __init__(self, size: int, outputs: int, bias: Any) -> None:
        super().__init__()
        self.outputs, self.bias = outputs, bias
        self.register_buffer("packed", torch.empty(round(size * FOUR_BITS), dtype=torch.uint8))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = _FourBitProduct.apply(rows.to(torch.bfloat16), self.outputs)
        return (made if self.bias is None else made + self.bias.to(torch.bfloat16)).to(rows.dtype)


def _quantise(model: Any) -> None:
    """Puts all frozen linear layers but the head in 4 bits."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    for parent in [*model.modules()]:
        for name, layer in [*parent.named_children()]:
            if isinstance(layer, torch.nn.Linear | Conv1D) and layer is not head and not layer.weight.requires_grad:
                outputs = layer.nf if isinstance(layer, Conv1D) else layer.out_features
                setattr(parent, name, _FourBits(layer.weight.numel(), outputs, layer.bias))
