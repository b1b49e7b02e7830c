"""SCALE: five masked tasks over a joint trunk, pairwise contrast before it, self-harmonised weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from polymodal import presence
from polymodal.config import Config
from polymodal.draws import seed_of, uniform
from polymodal.losses.contrastive import contrast, false_negatives, pairwise_contrast
from polymodal.losses.corruption import Corruption
from polymodal.losses.harmonise import agreement, harmonise, mean_one, similarity
from polymodal.losses.masking import masked_prediction
from polymodal.model import ITEM, Model
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.tensors import Batch, Cells, Embedded, Encoded, Losses, Parts, Term

__all__ = ["HarmoniseConfig", "Scale", "ScaleConfig"]


class HarmoniseConfig(Config):
    """The self-harmonised weights S -> W = S * softmax(S), and what they are multiplied with.

    Args:
        form: "none" is the equal-weights control; "paper" W as published, "matrix" its other reading; "code" with the
            release's row norm; "free" a learned S, clamped, instead of cosines.
        source: the vectors whose cosines are S. "split" takes the towers for the contrast and the trunk for the
            diagonal, as the release does.
        apply: "logit" (published): a temperature per row and pair; "loss": a weight on the loss.
        detach: keep the losses from lowering themselves through W.
        diagonal: weight of a modality's masked task. "literal" is W_ii, which rewards the modality that agrees least;
            "agreement" the mean of its off-diagonals, mean 1, always detached and always on the loss.
        presence: absent modalities take no part in the softmax; False counts them as the release does.
        floor: least weight of a present pair, None for none (see `losses.harmonise`).
        mean_one: divide a row's pair weights by their mean, so that they only say which pair counts more and the logit
            scale keeps its meaning (see `losses.mean_one`).
    """

    form: Literal["none", "paper", "matrix", "code", "free"] = "code"
    source: Literal["encoder", "trunk", "split"] = "encoder"
    apply: Literal["logit", "loss"] = "logit"
    detach: bool = True
    diagonal: Literal["literal", "agreement"] = "agreement"
    presence: bool = True
    floor: float | None = Field(0.1, ge=0, le=1)
    mean_one: bool = True

    @model_validator(mode="after")
    def _bounded(self) -> HarmoniseConfig:
        if self.form == "free" and self.apply == "loss":
            raise ValueError("form='free' with apply='loss' is unbounded below (S runs to minus infinity); use 'logit'")
        return self


class ScaleConfig(ObjectiveConfig):
    """Configuration of `Scale`.

    Args:
        mask_ratio: share of tokens (of units, where tokens hide together) hidden in every modality.
        mask_ratios: modality name -> ratio, where it differs.
        corruption: modality name -> Corruption, where it differs from the default.
        heads_input: where the masked heads read; "encoder" is what the release does, and there they cannot see the
            other modalities.
        harmonise: weights, above.
        temperature: of the contrast at the start; `learn_temperature` lets it move, up to logit scale 100.
        negatives: "both" as in SCALE: the rest of both modalities; "cross": of the other one only.
        false_negatives: rows of one group and identical cells are no negatives of one another.
        modality_dropout: chance that a row's modality is kept from the trunk, so that the item vector of every subset
            is trained; never the last one.
        contrast_weight, masked_weight: of the two published sums.
        fusion_weight: of the contrast between the item vector and the vectors of the row's modalities, which makes the
            vectors of different subsets comparable. Not in SCALE, which trains its trunk by masked tasks alone.
        recall_weight: of decoding every modality of the row from the item vector, `recall_ratio` of its tokens at a
            time. Contrast keeps what modalities share and forgets what only one of them knows; this keeps it. Not in
            SCALE either.
        recall_shared: whether recall also shapes the shared part of the item vector; False leaves that to the
            contrasts, and what recall needs beside it to the unique part. Without a unique part it always does.
    """

    kind: Literal["scale"] = "scale"
    mask_ratio: float = Field(0.15, ge=0, le=1)
    mask_ratios: dict[str, float] = Field(default_factory=dict)
    corruption: dict[str, Corruption] = Field(default_factory=dict)
    heads_input: Literal["trunk", "encoder"] = "trunk"
    harmonise: HarmoniseConfig = HarmoniseConfig()
    temperature: float = Field(0.07, gt=0)
    learn_temperature: bool = True
    negatives: Literal["both", "cross"] = "both"
    false_negatives: bool = True
    modality_dropout: float = Field(0.5, ge=0, lt=1)
    contrast_weight: float = Field(3.0, ge=0)
    masked_weight: float = Field(0.5, ge=0)
    fusion_weight: float = Field(3.0, ge=0)
    recall_weight: float = Field(0.5, ge=0)
    recall_ratio: float = Field(0.25, gt=0, le=1)
    recall_shared: bool = True

    def build(self, model: Model) -> Scale:
        """The objective for `model`, which needs a stage of towers."""
        return Scale(self, model)


class Recall(nn.Module):
    """Decodes a token from the item vector and what is asked for: a residual MLP on their sum, then the masked head."""

    def __init__(self, embedding: int, width: int) -> None:
        super().__init__()
        self.item = nn.Linear(embedding, width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, item: Tensor, query: Tensor) -> Tensor:
        """Item vectors (K, E) and queries (K, D) -> (K, D)."""
        # unit vectors have entries of size E ** -0.5; a linear layer wants entries of size 1
        x = self.item(item * item.shape[-1] ** 0.5) + query
        out: Tensor = x + self.mlp(self.norm(x))
        return out


class Scale(Objective):
    """Self-harmonised contrastive learning with masked prediction.

    ::

        L = sum_m L_masked(m)  +  mean_{i<j} L_contrast(i, j)  +  mean_m L_fusion(m)  +  sum_m L_recall(m)

    L_masked is predicted from the joint trunk; L_contrast stands between towers and trunk and is sharpened per row by
    W_ij; L_fusion ties the item vector to the modality vectors; L_recall decodes the row from the item vector alone.

    Needs: a model with stages ("towers", "trunk"). With ("towers",) the masked tasks read the towers.

    Source: Dong et al., "M5Product: Self-harmonized Contrastive Learning for E-commercial Multi-modal Pretraining",
        CVPR 2022, arXiv 2109.04275; Xiaodongsuper/SCALE_code at 227ae08.
    Differences from the paper: presence masks instead of zero imputation (`model` never attends the absent;
        `harmonise.presence`); learnable temperature (`learn_temperature`); row-L2 form with a floor, since
        S * softmax(S) alone caps weights at 0.2 (`harmonise.form`, `.floor`); agreement diagonal
        (`harmonise.diagonal`); false negatives (`false_negatives`); modality dropout; L_fusion and L_recall
        (`fusion_weight`, `recall_weight`); weights of mean 1 (`harmonise.mean_one`).
    Differences from the release, which we hold to be wrong: its heads read the towers (`heads_input="encoder"`), so the
        trunk gets no gradient but through W; its audio is always zero; weights scale regression predictions
        (`diagonal="literal"` with `apply="logit"`). `recipes.scale.reference()` sets these fields.
    Related: CLIP (pairwise contrast alone), M3AE (masked prediction alone).
    """

    trains_unique = True  # by recall

    def __init__(self, config: ScaleConfig, model: Model) -> None:
        super().__init__()
        self.config = config
        width, names = model.config.width, model.names
        self.heads = nn.ModuleDict({name: model.head(name) for name in names})
        self.masks = nn.ParameterDict({name: nn.Parameter(torch.randn(width) * 0.02) for name in names})
        start = torch.tensor(math.log(1 / config.temperature))
        self.log_scale = nn.Parameter(start.clone(), requires_grad=config.learn_temperature)
        self.log_scale_item = nn.Parameter(start.clone(), requires_grad=config.learn_temperature)
        if config.recall_weight:
            self.recall = Recall(model.config.item_width(len(names)), width)
        if config.harmonise.form == "free":
            self.free = nn.Parameter(torch.zeros(len(names), len(names)))

    def decoders(self) -> Mapping[str, nn.Module]:
        return dict(self.heads.items())

    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """Losses named `masked/m`, `contrast/i~j`, `fusion/m` and `recall/m`, each with its count."""
        batch = views[0]
        names = [name for name in model.names if name in batch.cells]
        hidden = {name: self._hide(model, batch, name, seed) for name in names}
        parts = model.tokenize(
            batch, lambda name, content, cells: self._corrupt(name, content, cells, hidden[name], batch, seed)
        )
        draws = {name: uniform(seed_of(seed, "drop", name), batch.keys, 2) for name in names}
        encoded = model.encode(parts, lambda p: presence.drop(p, self.config.modality_dropout, draws))
        embedded = model.embeddings(encoded)
        weights, diagonal = self._harmonise(model, encoded, embedded, names)
        terms = self._masked(model, batch, encoded, hidden, diagonal)
        ignore = self._ignore(batch, names)
        terms |= self._contrast(batch, embedded, names, weights, ignore)
        terms |= self._fusion(batch, model.shared(embedded[ITEM]), embedded, names, ignore)
        terms |= self._recalled(model, batch, self._kept(model, embedded[ITEM]), names, seed)
        log = {"scale/contrast": self.log_scale.detach().exp(), "scale/item": self.log_scale_item.detach().exp()}
        return Losses(terms, self._weights(terms, len(model.names)), log, embedded)

    def _weights(self, terms: Mapping[str, Term], modalities: int) -> dict[str, float]:
        # Fixed denominators: a modality that a batch happens to lack must not make the other terms weigh more.
        pairs = max(modalities * (modalities - 1) // 2, 1)
        of = {
            "masked": self.config.masked_weight,
            "contrast": self.config.contrast_weight / pairs,
            "fusion": self.config.fusion_weight / modalities,
            "recall": self.config.recall_weight,
        }
        return {name: of[name.partition("/")[0]] for name in terms}

    # -- masked tasks ------------------------------------------------------------------------------------------------

    def _hide(self, model: Model, batch: Batch, name: str, seed: int) -> Tensor:
        cells = batch.cells[name]
        ratio = self.config.mask_ratios.get(name, self.config.mask_ratio)
        draws = uniform(seed_of(seed, "hide", name), batch.keys, cells.valid.shape[1])
        modality = model.modality(name)
        return presence.hide(modality.may_hide(cells), ratio, draws, modality.overlap(cells.fields))

    def _corrupt(self, name: str, content: Tensor, cells: Cells, hidden: Tensor, batch: Batch, seed: int) -> Tensor:
        how, count = self.config.corruption.get(name, Corruption()), cells.valid.shape[1]
        fate, donor = (uniform(seed_of(seed, what, name), batch.keys, count) for what in ("fate", "donor"))
        return how.apply(content, cells.valid, hidden, self.masks[name], fate, donor)

    def _masked(
        self, model: Model, batch: Batch, encoded: Encoded, hidden: Mapping[str, Tensor], diagonal: Mapping[str, Tensor]
    ) -> dict[str, Term]:
        if not self.config.masked_weight:
            return {}
        parts = self._read(model, encoded)
        harmony = self.config.harmonise
        apply = "loss" if harmony.diagonal == "agreement" else harmony.apply
        terms = {}
        for name, hide in hidden.items():
            where = hide & parts[name].valid  # what modality dropout kept from the trunk has no prediction
            modality, cells = model.modality(name), batch.cells[name]
            target = modality.target({key: value[where] for key, value in cells.fields.items()})
            weight = diagonal[name][:, None].expand_as(where)[where] if name in diagonal else None
            prediction = self.heads[name](parts[name].x[where])
            terms[f"masked/{name}"] = masked_prediction(prediction, target, modality.distance, weight, apply)
        return terms

    def _read(self, model: Model, encoded: Encoded) -> Parts:
        """What the masked heads read."""
        return encoded.last if self.config.heads_input == "trunk" else model.unimodal(encoded)

    def predict(self, model: Model, batch: Batch, visible: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Modality -> what its masked head says of its hidden tokens, (K, ...), row by row; all of them are masked.

        A trunk trained on one hidden token in seven is asked for whole cells here, which it has not practised.
        """

        def masked(name: str, content: Tensor, cells: Cells) -> Tensor:
            zero = self.config.corruption.get(name, Corruption()).vector == "zero"
            mask = (torch.zeros_like(self.masks[name]) if zero else self.masks[name]).to(content.dtype)
            return torch.where(visible[name][cells.valid][:, None], content, mask)

        encoded = model.encode(model.tokenize(batch, masked))
        parts = self._read(model, encoded)
        return {name: self.heads[name](parts[name].x[parts[name].valid & ~shown]) for name, shown in visible.items()}

    # -- contrast ----------------------------------------------------------------------------------------------------

    def _harmonise(
        self, model: Model, encoded: Encoded, embedded: Mapping[str, Embedded], names: Sequence[str]
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """W (B, M, M) for the contrast and modality -> (B,) for the masked tasks; (None, {}) for equal weights."""
        how = self.config.harmonise
        if how.form == "none" or not names:
            return None, {}
        towers = [embedded[name] for name in names]
        trunk = [presence.pool(encoded.last[name]) for name in names] if how.source != "encoder" else towers
        present = torch.stack([e.present for e in towers])
        w = self._weigh(model, towers if how.source != "trunk" else trunk, present, names)
        w_diagonal = w if how.source != "split" else self._weigh(model, trunk, present, names)
        if how.diagonal == "agreement":
            diagonal = agreement(w_diagonal.detach(), present.T)
        else:
            diagonal = w_diagonal.diagonal(dim1=1, dim2=2)
        return w, {name: diagonal[:, at] for at, name in enumerate(names)}

    def _weigh(self, model: Model, vectors: Sequence[Embedded], present: Tensor, names: Sequence[str]) -> Tensor:
        how = self.config.harmonise
        if how.form == "free":
            at = [model.names.index(name) for name in names]
            free = ((self.free + self.free.T) / 2)[at][:, at].clamp(-5.0, 5.0)
            s = free.expand(present.shape[1], -1, -1)
        else:
            s = similarity(torch.stack([e.z for e in vectors]), present)
            s = s.detach() if how.detach else s
        w = harmonise(s, present.T if how.presence else None, how.form, how.floor)
        return mean_one(w, present.T) if how.mean_one else w

    def _contrast(
        self,
        batch: Batch,
        embedded: Mapping[str, Embedded],
        names: Sequence[str],
        weights: Tensor | None,
        ignore: Tensor | None,
    ) -> dict[str, Term]:
        if not self.config.contrast_weight or len(names) < 2:
            return {}
        z = torch.stack([embedded[name].z for name in names])
        present = torch.stack([embedded[name].present for name in names])
        gather = self.world.gather
        pairs = pairwise_contrast(
            z,
            present,
            self._scale(self.log_scale),
            candidates=gather(z.transpose(0, 1)).transpose(0, 1),
            candidates_present=gather(present.T).T,
            offset=self.world.rank * len(batch),
            weights=weights,
            apply=self.config.harmonise.apply,
            ignore=ignore,
            negatives=self.config.negatives,
        )
        return {f"contrast/{names[i]}~{names[j]}": term for (i, j), term in pairs.items()}

    def _fusion(
        self,
        batch: Batch,
        item: Embedded,
        embedded: Mapping[str, Embedded],
        names: Sequence[str],
        ignore: Tensor | None,
    ) -> dict[str, Term]:
        if not self.config.fusion_weight or not names:
            return {}
        gather = self.world.gather
        every = gather(item.z)
        both = {name: item.present & embedded[name].present for name in names}
        return {
            f"fusion/{name}": contrast(
                item.z,
                both[name],
                gather(embedded[name].z),
                gather(embedded[name].present),
                self._scale(self.log_scale_item),
                all_anchors=every,
                all_present=gather(both[name]),
                offset=self.world.rank * len(batch),
                ignore=None if ignore is None else ignore[at, at],
            )
            for at, name in enumerate(names)
        }

    def _kept(self, model: Model, item: Embedded) -> Embedded:
        if self.config.recall_shared or not model.config.unique:
            return item
        shared, unique = item.z.tensor_split([model.config.embedding], 1)
        return Embedded(torch.cat([shared.detach(), unique], 1), item.present)

    def _recalled(self, model: Model, batch: Batch, item: Embedded, names: Sequence[str], seed: int) -> dict[str, Term]:
        if not self.config.recall_weight:
            return {}
        terms = {}
        for name in names:
            modality, cells = model.modality(name), batch.cells[name]
            draws = uniform(seed_of(seed, "recall", name), batch.keys, cells.valid.shape[1])
            where = cells.valid & (draws < self.config.recall_ratio)
            fields = {key: value[where] for key, value in cells.fields.items()}
            state = self.recall(item.z[where.nonzero()[:, 0]], modality.query(fields))
            terms[f"recall/{name}"] = masked_prediction(
                self.heads[name](state), modality.target(fields), modality.distance
            )
        return terms

    def _ignore(self, batch: Batch, names: Sequence[str]) -> Tensor | None:
        if not self.config.false_negatives or not names:
            return None
        none = torch.zeros_like(batch.keys)
        digests = torch.stack([batch.digests.get(name, none).where(batch.cells[name].present, none) for name in names])
        gather = self.world.gather
        return false_negatives(batch.groups, digests, all_groups=gather(batch.groups), all_digests=gather(digests.T).T)

    def _scale(self, log_scale: Tensor) -> Tensor:
        return log_scale.clamp(max=math.log(100.0)).exp()
