"""Weights of a BERT folder into stacks: config.json and model.safetensors as Hugging Face writes them, nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from polymodal.nn.blocks import Block, Stack
from polymodal.nn.heads import TiedHead
from polymodal.types import BadInput

__all__ = ["Bert", "fill_bert", "fill_head", "fill_stack", "read_bert"]

_FIELD, _HEAD = "model.bert", "cls.predictions"
# our parameter of a block -> the name in a layer of the file
_BLOCK = {
    "attention.out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.0": "intermediate.dense",
    "mlp.2": "output.dense",
    "norm2": "output.LayerNorm",
}


@dataclass(frozen=True)
class Bert:
    """What a folder holds: `config` of config.json, `weights` by name without the prefix "bert."."""

    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    def take(self, name: str) -> Tensor:
        """The tensor of that name. Raises BadInput where it is missing."""
        if name not in self.weights:
            raise BadInput(_FIELD, f"weights of a BERT, {name} among them", f"{len(self.weights)} others")
        return self.weights[name]


def read_bert(folder: Path) -> Bert:
    """Reads config.json and model.safetensors.

    Raises:
        BadInput: a file is missing or damaged, or is no BERT. Pickled weights (pytorch_model.bin) are not read.
    """
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).exists():
            hint = "Convert pytorch_model.bin to safetensors first: pickles are not read." if "model" in name else ""
            raise BadInput(_FIELD, f"a folder with {name}", folder, hint)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        tensors = load_tensors((folder / "model.safetensors").read_bytes())
    except (ValueError, SafetensorError) as error:
        raise BadInput(_FIELD, "readable config.json and model.safetensors", str(error)[:100]) from None
    return Bert(config, {_plain(name): tensor for name, tensor in tensors.items()})


def _plain(name: str) -> str:
    # old checkpoints say gamma and beta
    return name.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight").replace(".beta", ".bias")


def fill_bert(bert: Bert, tables: Mapping[str, Tensor], norm: nn.LayerNorm | None, stacks: Sequence[Stack]) -> None:
    """Fills the tables of words and the stacks one after the other: with 6 + 6 layers, the layers 0-5 of BERT-base go
    into the first and 6-11 into the second.

    Args:
        bert: of `read_bert`.
        tables: our parameters by their names in the file; of positions the first rows are taken.
        norm: of the input; None leaves BERT's out.
        stacks: in the order in which a token of the text passes them.

    Raises:
        BadInput: other shapes, pre-norm stacks, other heads, more layers than the file has.

    Source: InterBERT (arXiv 2003.13198; black4321/InterBERT at 7ccabb1): interaction and text layers are one list.
    """
    if not tables:
        raise BadInput(_FIELD, "a modality that takes words", "one without tables to fill")
    for name, table in tables.items():
        source = bert.take(f"embeddings.{name}.weight")
        _copy(name, table, source[: len(table)] if name == "position_embeddings" else source)
    if norm is not None:
        _copy_pair(bert, "embeddings.LayerNorm", norm)
    first = 0
    for stack in stacks:
        fill_stack(stack, bert, first)
        first += stack.config.layers


def fill_stack(stack: Stack, bert: Bert, first: int = 0) -> None:
    """Fills a post-norm stack with the layers from `first` on. Raises BadInput as `fill_bert`."""
    config = bert.config
    heads = stack.config.heads_for(stack.width)
    for what, ours, theirs in (
        ("norm", stack.config.norm, "post"),
        ("width", stack.width, config.get("hidden_size", stack.width)),
        ("heads", heads, config.get("num_attention_heads", heads)),
        ("activation", stack.config.activation, config.get("hidden_act", "gelu")),
    ):
        if ours != theirs:
            raise BadInput(_FIELD, f"a stack with {what} {theirs}, as in the folder", ours)
    layers = config.get("num_hidden_layers", first + stack.config.layers)
    if first + stack.config.layers > layers:
        raise BadInput(_FIELD, f"at most the folder's {layers} layers in all", first + stack.config.layers)
    for at, block in enumerate(stack.blocks):
        assert isinstance(block, Block)
        _fill_block(block, bert, f"encoder.layer.{first + at}")


def fill_head(bert: Bert, head: nn.Module) -> bool:
    """Fills a symbol head with the masked language model's: dense layer, norm, bias, and the decoder where the head has
    one of its own, which in the file is the table of words or tied to it.

    Returns:
        Whether it did: not where the file has no such head, or this one is of another form.

    Raises:
        BadInput: other shapes.
    """
    tied = isinstance(head, TiedHead)
    layers = list((head.transform if isinstance(head, TiedHead) else head).children())
    form = [nn.Linear, nn.GELU, nn.LayerNorm] if tied else [nn.Linear, nn.GELU, nn.LayerNorm, nn.Linear]
    if [type(layer) for layer in layers] != form or f"{_HEAD}.transform.dense.weight" not in bert.weights:
        return False
    _copy_pair(bert, f"{_HEAD}.transform.dense", layers[0])
    _copy_pair(bert, f"{_HEAD}.transform.LayerNorm", layers[2])
    _copy(f"{_HEAD}.bias", cast(Tensor, (head if tied else layers[3]).bias), bert.take(f"{_HEAD}.bias"))
    if not tied:
        words = bert.take("embeddings.word_embeddings.weight")
        _copy(f"{_HEAD}.decoder", cast(Tensor, layers[3].weight), bert.weights.get(f"{_HEAD}.decoder.weight", words))
    return True


def _fill_block(block: Block, bert: Bert, layer: str) -> None:
    for kind in ("weight", "bias"):
        parts = [bert.take(f"{layer}.attention.self.{name}.{kind}") for name in ("query", "key", "value")]
        _copy(f"{layer}.attention.self", getattr(block.attention.qkv, kind), torch.cat(parts))
    for ours, theirs in _BLOCK.items():
        _copy_pair(bert, f"{layer}.{theirs}", block.get_submodule(ours))


def _copy_pair(bert: Bert, name: str, module: nn.Module) -> None:
    for kind in ("weight", "bias"):
        _copy(f"{name}.{kind}", getattr(module, kind), bert.take(f"{name}.{kind}"))


@torch.no_grad()
def _copy(name: str, target: Tensor, source: Tensor) -> None:
    if target.shape != source.shape:
        raise BadInput(f"{_FIELD}: {name}", f"shape {tuple(target.shape)}, as the model has", tuple(source.shape))
    target.copy_(source)
