"""Streams: masked prediction and matching, what UNITER, ViLBERT and their family are pretrained by."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from polymodal import presence
from polymodal.draws import seed_of, uniform
from polymodal.losses._lending import borrow, everyone
from polymodal.losses.corruption import Corruption
from polymodal.losses.masking import masked_prediction
from polymodal.losses.pairing import choose, eligible_partners, partners, same_or_not
from polymodal.model import ITEM, Model
from polymodal.nn.heads import predict
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.tensors import Batch, Cells, Embedded, Encoded, Losses, Parts, Term, Tokens

__all__ = ["Streams", "StreamsConfig"]


class StreamsConfig(ObjectiveConfig):
    """Configuration of `Streams`.

    Args:
        mask_ratio: share of tokens (of units, where tokens hide together) hidden in every modality.
        mask_ratios: modality name -> ratio, where it differs; 0 for a modality that is only looked at.
        replacement: modality name -> Corruption, where it differs from the default.
        tie: predict symbols by the model's own vectors of them, as BERT does.
        one_at_a_time: hide tokens of one modality a row only, drawn anew in every step, so that what is hidden in a
            picture is not also hidden in its title (UNITER's conditional masking).
        mismatch: chance that a row asked about two of its modalities gets a wrong one of them.
        matching_reads: "product": of the means of the two modalities' last tokens, after a layer each (ViLBERT);
            "item": the item vector (UNITER, VisualBERT and LXMERT, which read the first token).
        matching_masked: ask about the rows as they are masked (ViLBERT, LXMERT, VisualBERT), or whole (UNITER).
        modality_dropout: chance that a row's modality is kept from the others, never the last one. No original has it.
        masked_weight, matching_weight: of the two published sums.
        recall_weight: of decoding hidden tokens from exported vectors alone, `recall_ratio` of a modality's tokens at
            a time. No original has it, as none exports a vector for each modality: without it nothing trains the
            projections of modalities.
    """

    kind: Literal["streams"] = "streams"
    mask_ratio: float = Field(0.15, ge=0, le=1)
    mask_ratios: dict[str, float] = Field(default_factory=dict)
    replacement: dict[str, Corruption] = Field(default_factory=dict)
    tie: bool = False
    one_at_a_time: bool = False
    mismatch: float = Field(0.5, ge=0, le=1)
    matching_reads: Literal["product", "item"] = "product"
    matching_masked: bool = False
    modality_dropout: float = Field(0.0, ge=0, lt=1)
    masked_weight: float = Field(1.0, ge=0)
    matching_weight: float = Field(1.0, ge=0)
    recall_weight: float = Field(0.5, ge=0)
    recall_ratio: float = Field(0.25, gt=0, le=1)

    @property
    def aligned(self) -> bool:
        return False

    def build(self, model: Model) -> Streams:
        """The objective for `model`, which may have any stages."""
        return Streams(self, model)


class Asked(NamedTuple):
    """The question of each row: which pair (B,), its two sides (B, 2), whether they belong together (B,), whether the
    row is asked at all (B,), and for each modality whose cell stands in the row (M, B), its place among the rows of all
    processes; `places` (B,) are the rows' own.
    """

    pair: Tensor
    sides: Tensor
    same: Tensor
    counted: Tensor
    source: Tensor
    places: Tensor


class Matcher(nn.Module):
    """Answers with one logit: a weight per pair of modalities on a state of the row."""

    def __init__(self, config: StreamsConfig, model: Model, pairs: int) -> None:
        super().__init__()
        width, names = model.config.width, model.names
        self.item = config.matching_reads == "item"
        if self.item:
            self.state = nn.Linear(model.config.item_width(len(names)), width)
        else:
            self.states = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        self.weight, self.bias = nn.Parameter(torch.randn(pairs, width) * width**-0.5), nn.Parameter(torch.zeros(pairs))

    def forward(self, model: Model, encoded: Encoded, asked: Asked) -> Tensor:
        """(B,) logits; meaningless where a row is not asked."""
        if self.item:
            vector = model.embeddings(encoded, [ITEM])[ITEM].z
            state = self.state(vector * vector.shape[1] ** 0.5).tanh()
        else:
            rows = torch.arange(len(asked.pair), device=asked.pair.device)
            parts, some = encoded.last, next(iter(encoded.last.values()))
            nothing = some.x.new_zeros((len(rows), some.x.shape[2]))
            each = torch.stack(
                [
                    layer(presence.pool(parts[name]).z).relu() if name in parts else nothing
                    for name, layer in self.states.items()
                ]
            )
            state = each[asked.sides[:, 0], rows] * each[asked.sides[:, 1], rows]
        logits: Tensor = (state.float() * self.weight[asked.pair]).sum(1) + self.bias[asked.pair]
        return logits


class Streams(Objective):
    """Masked prediction from all modalities of a row, and whether two modalities belong together.

    ::

        L = sum_m L_masked(m)  +  mean_{i<j} L_matching(i, j)  +  sum_m L_recall(m)

    For the second sum each row that has two modalities is asked about one pair of them, drawn by its key: it is encoded
    with these two alone, and with chance `mismatch` one of them is another row's. With two modalities that is the
    image-text matching of the papers.

    Needs: any stages. The fusion encoders have ("trunk",) or ("towers", "cotrunk").

    Source: UNITER (Chen et al. 2020), sections 3.1 and 3.2; ViLBERT (Lu et al. 2019), section 3.1; LXMERT (Tan and
        Bansal 2019), section 3.1; VisualBERT (Li et al. 2019); VL-BERT (Su et al. 2020).
    Differences from them: any number of modalities, any absent; continuous tokens are regressed (no detector's classes
        to predict); a pair is matched by a pass of its own, so that a row with a wrong cell teaches no masked
        prediction and a wrong cell of a third modality cannot tell on a pair; no word-region alignment (UNITER), no
        question answering (LXMERT), no next caption (VisualBERT); wrong cells come from the rows of the batch, of all
        processes, not of one group and not of equal content; L_recall (`recall_weight`).
    Related: SCALE (contrast instead of matching), BERT (this with one modality).
    """

    trains_unique = True  # by recall

    def __init__(self, config: StreamsConfig, model: Model) -> None:
        super().__init__()
        self.config = config
        width, names = model.config.width, model.names
        self.heads = nn.ModuleDict({name: model.head(name, config.tie) for name in names})
        lacking = [name for name in names if model.modality(name).mask() is None]
        self.masks = nn.ParameterDict({name: nn.Parameter(torch.randn(width) * 0.02) for name in lacking})
        self.pairs = list(itertools.combinations(range(len(names)), 2))
        if config.matching_weight and self.pairs:
            self.matcher = Matcher(config, model, len(self.pairs))
        if config.recall_weight:
            self.vectors = nn.ModuleDict({name: nn.Linear(model.config.embedding, width) for name in names})
            self.item = nn.Linear(model.config.item_width(len(names)), width)
            self.mlp = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )

    def decoders(self) -> Mapping[str, nn.Module]:
        return dict(self.heads.items())

    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """Losses named `masked/m`, `matching/i~j` and `recall/m`, each with its count."""
        batch = views[0]
        names = [name for name in model.names if name in batch.cells]
        hidden = self._hide(model, batch, names, seed)
        parts = model.tokenize(
            batch, lambda name, content, cells: self._replace(model, name, content, cells, hidden[name], batch, seed)
        )
        draws = {name: uniform(seed_of(seed, "drop", name), batch.keys, 2) for name in names}
        encoded = model.encode(parts, lambda p: presence.drop(p, self.config.modality_dropout, draws))
        embedded = model.embeddings(encoded)
        terms = self._masked(model, batch, encoded, hidden)
        terms |= self._matching(model, batch, parts, seed)
        terms |= self._recalled(model, batch, embedded, names, seed)
        weights = {
            "masked": self.config.masked_weight,
            "matching": self.config.matching_weight / max(len(self.pairs), 1),
            "recall": self.config.recall_weight,
        }
        return Losses(terms, {name: weights[name.partition("/")[0]] for name in terms}, embedded=embedded)

    # -- masked prediction -------------------------------------------------------------------------------------------

    def _hide(self, model: Model, batch: Batch, names: Sequence[str], seed: int) -> dict[str, Tensor]:
        ratios = {name: self.config.mask_ratios.get(name, self.config.mask_ratio) for name in names}
        hidden = {}
        for name in names:
            cells, modality = batch.cells[name], model.modality(name)
            draws = uniform(seed_of(seed, "hide", name), batch.keys, cells.valid.shape[1])
            hidden[name] = presence.hide(modality.may_hide(cells), ratios[name], draws, modality.overlap(cells.fields))
        if self.config.one_at_a_time and names:
            able = torch.stack([batch.cells[name].present & (ratios[name] > 0) for name in names], 1)
            draws = torch.cat([uniform(seed_of(seed, "one", name), batch.keys, 1) for name in names], 1)
            which, _ = choose(able, draws)
            hidden = {name: hide & (which == at)[:, None] for at, (name, hide) in enumerate(hidden.items())}
        return hidden

    def _replace(
        self, model: Model, name: str, content: Tensor, cells: Cells, hidden: Tensor, batch: Batch, seed: int
    ) -> Tensor:
        how, count = self.config.replacement.get(name, Corruption()), cells.valid.shape[1]
        fate, donor = (uniform(seed_of(seed, what, name), batch.keys, count) for what in ("fate", "donor"))
        own = model.modality(name).mask()
        return how.apply(content, cells.valid, hidden, self.masks[name] if own is None else own, fate, donor)

    def _masked(self, model: Model, batch: Batch, encoded: Encoded, hidden: Mapping[str, Tensor]) -> dict[str, Term]:
        if not self.config.masked_weight:
            return {}
        terms = {}
        for name, hide in hidden.items():
            part, modality = encoded.last[name], model.modality(name)
            where = hide & part.valid  # what modality dropout kept from the others has no prediction
            target = modality.target({key: value[where] for key, value in batch.cells[name].fields.items()})
            prediction = predict(self.heads[name], part.x[where], modality.table())
            terms[f"masked/{name}"] = masked_prediction(prediction, target, modality.distance)
        return terms

    # -- matching ----------------------------------------------------------------------------------------------------

    def _matching(self, model: Model, batch: Batch, masked: Parts, seed: int) -> dict[str, Term]:
        if not self.config.matching_weight or not self.pairs or not masked:
            return {}
        asked = self._ask(model, batch, seed)
        parts = masked if self.config.matching_masked else model.tokenize(batch)
        shown = {}
        for at, name in enumerate(model.names):
            if name in parts:
                here = asked.counted & (asked.sides == at).any(1)
                own, source = Cells({"x": parts[name].x}, parts[name].valid), asked.source[at]
                lent = borrow(own, source != asked.places, source, self.world)
                shown[name] = presence.restrict(Tokens(lent.fields["x"], lent.valid), here)
        logits = self.matcher(model, model.encode(shown), asked)
        known = [at for at, pair in enumerate(self.pairs) if all(model.names[side] in parts for side in pair)]
        terms = same_or_not(logits, asked.same, asked.pair, asked.counted, known)
        named = [f"matching/{model.names[i]}~{model.names[j]}" for i, j in (self.pairs[at] for at in known)]
        return dict(zip(named, terms, strict=True))

    def _ask(self, model: Model, batch: Batch, seed: int) -> Asked:
        all_ = everyone(batch, model.names, self.world)
        present = all_.present[:, all_.own]  # (M, B)
        sides = torch.tensor(self.pairs, device=present.device)
        able = present[sides[:, 0]] & present[sides[:, 1]]
        pair, some = choose(able.T, uniform(seed_of(seed, "pair"), batch.keys, len(self.pairs)))
        fate = uniform(seed_of(seed, "mismatch"), batch.keys, 2)
        changed = sides[pair].gather(1, (fate[:, 1:] < 0.5).long())[:, 0]  # the side that would be another row's
        found = [
            partners(eligible_partners(there, all_.groups, digests, all_.own), all_.keys, seed_of(seed, name), all_.own)
            for name, there, digests in zip(model.names, all_.present, all_.digests, strict=True)
        ]
        partner, exists = (torch.stack(each) for each in zip(*found, strict=True))
        wrong = fate[:, 0] < self.config.mismatch
        # a row that nobody could be mistaken for is not asked: it would only teach to say yes
        counted = some & exists[changed, torch.arange(len(batch), device=present.device)]
        taken = (torch.arange(len(present), device=present.device)[:, None] == changed) & wrong & counted
        return Asked(pair, sides[pair], ~wrong, counted, torch.where(taken, partner, all_.places), all_.places)

    # -- recall ------------------------------------------------------------------------------------------------------

    def _recalled(
        self, model: Model, batch: Batch, embedded: Mapping[str, Embedded], names: Sequence[str], seed: int
    ) -> dict[str, Term]:
        if not self.config.recall_weight:
            return {}
        terms, item = {}, embedded[ITEM]
        for name in names:
            modality, cells, own = model.modality(name), batch.cells[name], embedded[name]
            draws = uniform(seed_of(seed, "recall", name), batch.keys, cells.valid.shape[1])
            # what modality dropout took from a vector that is read after mixing cannot be recalled from it
            where = cells.valid & (draws < self.config.recall_ratio) & own.present[:, None] & item.present[:, None]
            fields = {key: value[where] for key, value in cells.fields.items()}
            row = where.nonzero()[:, 0]
            # unit vectors have entries of size E ** -0.5; a linear layer wants entries of size 1
            states = [
                layer(z[row] * z.shape[1] ** 0.5) for layer, z in ((self.vectors[name], own.z), (self.item, item.z))
            ]
            state = torch.cat(states) + modality.query(fields).repeat(2, 1)
            target = modality.target(fields)
            prediction = predict(self.heads[name], state + self.mlp(state), modality.table())
            terms[f"recall/{name}"] = masked_prediction(
                prediction, target.repeat(2, *[1] * (target.ndim - 1)), modality.distance
            )
        return terms
