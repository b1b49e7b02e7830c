"""M3AE: the encoder sees a part of the tokens of every modality, a light decoder says what the others were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from polymodal import presence
from polymodal.config import nearest
from polymodal.draws import seed_of, uniform
from polymodal.losses.reconstruction import reconstruction
from polymodal.modality import Modality
from polymodal.model import ITEM, Model
from polymodal.nn.blocks import Stack, StackConfig
from polymodal.nn.positions import sincos
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.tensors import Batch, Cells, Embedded, Encoded, Losses, Term, Tokens
from polymodal.types import BadInput

__all__ = ["M3AE", "Decoder", "M3AEConfig"]


class M3AEConfig(ObjectiveConfig):
    """Configuration of `M3AE`.

    Args:
        ratio: share of a modality's tokens that is hidden; floor(L (1 - ratio)) of a row's L stay visible.
        ratios: modality name -> ratio, where it differs.
        weights: modality name -> weight of its loss, where it is not 1.
        units: modalities whose tied tokens (`Modality.overlap`: a word, a name, a moment) hide together; L counts
            those sets then.
        shares: how what is visible is dealt out: "fixed", every modality its own part; "dirichlet", the same number in
            all, in shares drawn for each row, so that a modality is sometimes hidden as a whole (MultiMAE).
        concentration: of that Dirichlet distribution; 1 is uniform over all shares, more is more even.
        slack: added to L (1 - ratio) before rounding down; at 0, as in the release, int(10 * (1 - 0.9)) is 0.
        shared_mask: one order of hiding for all rows of a batch, as the release has it on each device.
        slots: modality name -> tokens that the release pads to; padding then takes part in the draw, and a short text
            may have nothing visible (12 of 64 slots at 75 %: 2 rows in 100). By default real tokens alone are drawn.
        divide: "rows" averages a modality's loss over the rows that have something of it to predict; "batch" divides
            by all rows, as the release does.
        all_tokens: modalities whose loss is on visible tokens too, of those that may be hidden.
        decoder: its stack. decoder_width: its width; 0 takes half the model's, at least 32.
        places: what the decoder knows of a token's place: "query", a linear map of `Modality.query`; "sincos", fixed
            codes where a modality has coordinates.
        heads: "modality" takes the modality's own head; "linear" only its last linear map, as in the release.
        vectors: the decoder also reads the row's exported vectors, one token each. Without it nothing trains the
            model's projections, which the paper does not have.
        bottleneck: share of the rows (with `vectors`) whose decoder reads the item vector and nothing else of what is
            visible, so that the item vector must hold it.
    """

    kind: Literal["m3ae"] = "m3ae"
    ratio: float = Field(0.75, ge=0, le=1)
    ratios: dict[str, float] = Field(default_factory=dict)
    weights: dict[str, float] = Field(default_factory=dict)
    units: tuple[str, ...] = ()
    shares: Literal["fixed", "dirichlet"] = "fixed"
    concentration: int = Field(1, ge=1, le=100)
    slack: float = Field(1e-6, ge=0, lt=0.5)
    shared_mask: bool = False
    slots: dict[str, int] = Field(default_factory=dict)
    divide: Literal["rows", "batch"] = "rows"
    all_tokens: tuple[str, ...] = ()
    decoder: StackConfig = StackConfig(layers=2)
    decoder_width: int = Field(0, ge=0)
    places: Literal["query", "sincos"] = "query"
    heads: Literal["modality", "linear"] = "modality"
    vectors: bool = True
    bottleneck: float = Field(0.25, ge=0, le=1)

    @model_validator(mode="after")
    def _agrees(self) -> M3AEConfig:
        if self.slots and (self.shares != "fixed" or set(self.slots) & set(self.units)):
            raise ValueError("slots draws padding too, as the release does; it has neither units nor Dirichlet shares")
        return self

    @property
    def aligned(self) -> bool:
        return False

    def build(self, model: Model) -> M3AE:
        """The objective for `model`, which may have any stages; the paper's has a trunk alone."""
        for field in ("ratios", "weights", "slots", "units", "all_tokens"):
            wrong = [name for name in getattr(self, field) if name not in model.names]
            if wrong:
                known = ", ".join(model.names)
                raise BadInput(f"objective.{field}", f"of {known}", repr(wrong[0]), nearest(wrong[0], model.names))
        return M3AE(self, model)


@dataclass(frozen=True)
class Seen:
    """What the decoder reads of a batch: the encoder's output, which tokens were visible to it, the exported vectors,
    and `blind` (B,) bool, the rows whose item vector is all that it reads."""

    encoded: Encoded
    visible: Mapping[str, Tensor]
    embedded: Mapping[str, Embedded]
    blind: Tensor


class Decoder(nn.Module):
    """The shared light decoder: visible tokens through one projection, a mask vector where a token is hidden, places
    and type vectors on both; the summary token in front has neither.

    Source: M3AE, arXiv 2205.14204, section 3; MAE (He et al. 2022), section 3.
    """

    def __init__(self, config: M3AEConfig, model: Model) -> None:
        super().__init__()
        self.config, width = config, model.config.width
        self.width = config.decoder_width or max(32, width // 2)
        self.project = nn.Linear(width, self.width)
        if any(not self._fixed(model.modality(name)) for name in model.names):
            self.place = nn.Linear(width, self.width)
        self.types = nn.ParameterDict({name: nn.Parameter(torch.randn(self.width) * 0.02) for name in model.names})
        self.masks = nn.ParameterDict({name: nn.Parameter(torch.randn(self.width) * 0.02) for name in model.names})
        if config.vectors:
            self.item = nn.Linear(model.config.item_width(len(model.names)), self.width)
            self.vector = nn.Linear(model.config.embedding, self.width)
        self.stack = Stack(self.width, config.decoder)

    def forward(self, model: Model, batch: Batch, seen: Seen) -> dict[str, Tokens]:
        """Every token of every modality, (B, N, width) each; of blind rows the hidden ones only."""
        parts = {name: self._tokens(model, name, batch.cells[name], seen) for name in seen.visible}
        joined = {**self._summaries(seen), **parts}
        decoded = presence.split(self.stack(presence.join(joined)), joined)
        return {name: decoded[name] for name in parts}

    def _fixed(self, modality: Modality) -> bool:
        return self.config.places == "sincos" and modality.coordinates(modality.blank()) is not None

    def _tokens(self, model: Model, name: str, cells: Cells, seen: Seen) -> Tokens:
        visible, fields, modality = seen.visible[name], cells.packed(), model.modality(name)
        known = presence.scatter(self.project(seen.encoded.last[name].x[visible]).float(), visible)
        content = torch.where(visible[cells.valid][:, None], known.x[cells.valid], self.masks[name])
        if self._fixed(modality):
            place = sincos(cast(Tensor, modality.coordinates(fields)), self.width)
        else:
            place = self.place(modality.query(fields))
        tokens = presence.scatter(content + place + self.types[name], cells.valid)
        return Tokens(tokens.x, cells.valid & ~(visible & seen.blind[:, None]))

    def _summaries(self, seen: Seen) -> dict[str, Tokens]:
        """The summary token of a trunk, and a token for every exported vector."""
        out: dict[str, Tokens] = {}
        if ITEM in seen.encoded.last:
            summary = seen.encoded.last[ITEM].map(lambda x: self.project(x).float())
            out["summary"] = presence.restrict(summary, ~seen.blind)
        for name, vector in seen.embedded.items():
            # unit vectors have entries of size E ** -0.5; a linear layer wants entries of size 1
            z = vector.z * vector.z.shape[1] ** 0.5
            x = self.item(z) if name == ITEM else self.vector(z) + self.types[name]
            there = vector.present if name == ITEM else vector.present & ~seen.blind
            out[f"vector {name}"] = Tokens(x.float()[:, None], there[:, None])
        return out


class M3AE(Objective):
    """Multimodal masked autoencoder: reconstruct what the encoder did not see, of every modality, from what it did.

    ::

        L = sum_m w_m mean_b l_b(m),    l_b(m) = mean over the hidden tokens i of row b of d_m(o_bi, t_bi)

    Hidden tokens are taken out before anything is embedded, so the encoder (all stages of the model) costs what the
    visible ones cost. Of the L real tokens of each modality that may be hidden a row keeps floor(L (1 - r)), and all
    that may not (marks of begin and end). A row that would keep nothing at all keeps the token with the smallest draw,
    because a model has no vector of nothing; with one token in all it has nothing to predict, and does not count.

    Source: Geng et al., "Multimodal Masked Autoencoders Learn Transferable Representations", arXiv 2205.14204;
        young-geng/m3ae_public at a5eb14f. MAE (He et al. 2022); the Dirichlet shares: Bachmann et al. 2022 (MultiMAE).
    Differences: any number of modalities, each missing in any row, without a token for what is missing; a mask of its
        own for every row (`shared_mask`), over real tokens only (`slots`), with exact counts (`slack`); a modality's
        loss averaged over rows that have it (`divide`); heads on hidden tokens only; the modality's own heads
        (`heads`) and learned places (`places`); the decoder reads the exported vectors (`vectors`, `bottleneck`).
        `recipes.m3ae.reference()` sets these fields as the release has them. Not here: VQGAN targets, and a second
        pass for unpaired text (unpaired rows stand in the same batch).
    Related: SCALE (mask tokens in the encoder, contrast besides), MAE (this with one modality).
    """

    trains_unique = True  # the decoder reads the whole item vector

    def __init__(self, config: M3AEConfig, model: Model) -> None:
        super().__init__()
        self.config = config
        self.decoder = Decoder(config, model)
        heads = {name: model.modality(name).head(self.decoder.width) for name in model.names}
        if config.heads == "linear":
            heads = {name: [m for m in head.modules() if isinstance(m, nn.Linear)][-1] for name, head in heads.items()}
        self.heads = nn.ModuleDict(heads)

    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """Losses named `masked/m`, counted in rows."""
        batch = views[0]
        seen = self.look(model, batch, self.choose(model, batch, seed), seed)
        terms = self._terms(model, batch, seen)
        weights = {f"masked/{name}": self.config.weights.get(name, 1.0) for name in seen.visible}
        return Losses(terms, weights, embedded=seen.embedded)

    def _terms(self, model: Model, batch: Batch, seen: Seen) -> dict[str, Term]:
        decoded, terms = self.decoder(model, batch, seen), {}
        for name, tokens in decoded.items():
            modality, cells = model.modality(name), batch.cells[name]
            where = tokens.valid & modality.may_hide(cells)
            if name not in self.config.all_tokens:
                where = where & ~seen.visible[name]
            target = modality.target({key: value[where] for key, value in cells.fields.items()})
            prediction = self.heads[name](tokens.x[where])
            rows = where.nonzero()[:, 0]
            terms[f"masked/{name}"] = reconstruction(
                prediction, target, modality.distance, rows, len(batch), self.config.divide
            )
        return terms

    # -- what is visible ---------------------------------------------------------------------------------------------

    def choose(self, model: Model, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Modality -> which of its tokens the encoder may see, (B, N) bool: a part of those that may be hidden
        (`Modality.maskable`), and the others."""
        names = [name for name in model.names if name in batch.cells]
        keys = torch.zeros_like(batch.keys) if self.config.shared_mask else batch.keys
        valid = {name: model.modality(name).may_hide(batch.cells[name]) for name in names}
        always = {name: batch.cells[name].valid & ~valid[name] for name in names}
        draws = {}
        for name in names:
            slots = max(valid[name].shape[1], self.config.slots.get(name, 0))
            draws[name] = uniform(seed_of(seed, "hide", name), keys, slots)
        tied = {name: self._tied(model, batch, name) for name in names}
        sets = {name: presence.leads(valid[name], tied[name]).sum(1) for name in names}
        counts = {name: self._kept(name, sets[name]) for name in names}
        if self.config.shares == "dirichlet":
            counts = self._dealt(counts, sets, batch, seed)
        visible = {}
        for name in names:
            if name in self.config.slots:
                slot = torch.arange(draws[name].shape[1], device=keys.device) < self.config.slots[name]
                shown = presence.show(slot.expand_as(draws[name]), counts[name], draws[name])
                visible[name] = valid[name] & shown[:, : valid[name].shape[1]]
            else:
                visible[name] = presence.show(valid[name], counts[name], draws[name], tied[name])
            visible[name] = visible[name] | always[name]
        draws = {name: draws[name][:, : valid[name].shape[1]] for name in names}
        return presence.at_least_one(visible, valid, draws)

    def _tied(self, model: Model, batch: Batch, name: str) -> Tensor | None:
        return model.modality(name).overlap(batch.cells[name].fields) if name in self.config.units else None

    def _kept(self, name: str, sets: Tensor) -> Tensor:
        """How many of a row's tokens (or sets of them) stay visible, (B,)."""
        slots = self.config.slots.get(name)
        length = sets.double() if slots is None else torch.full_like(sets, slots, dtype=torch.double)
        return (length * (1.0 - self.config.ratios.get(name, self.config.ratio)) + self.config.slack).floor().long()

    def _dealt(
        self, counts: Mapping[str, Tensor], sets: Mapping[str, Tensor], batch: Batch, seed: int
    ) -> dict[str, Tensor]:
        """The row's sum of `counts` in shares drawn from a Dirichlet distribution over the modalities it has.

        A Gamma variable of integer shape c is the sum of c exponential ones, which needs no rejection.
        """
        total = torch.stack(list(counts.values())).sum(0)
        gamma = {}
        for name, present in ((name, sets[name] > 0) for name in counts):
            draws = uniform(seed_of(seed, "share", name), batch.keys, self.config.concentration)
            gamma[name] = -(draws.clamp(min=1e-7).log().sum(1)).masked_fill(~present, 0.0)
        whole = torch.stack(list(gamma.values())).sum(0).clamp(min=1e-12)
        return {
            name: torch.minimum((value / whole * total).round().long(), sets[name]) for name, value in gamma.items()
        }

    def look(self, model: Model, batch: Batch, visible: Mapping[str, Tensor], seed: int | None = None) -> Seen:
        """The batch through the encoder, which reads the visible tokens and no others.

        Args:
            visible: modality -> (B, N) bool; what is not named is left out.
            seed: draws the rows of the bottleneck; None for none, as when the decoder is used.
        """
        encoded = model.encode(model.tokenize(presence.reveal(batch, visible)))
        blind = torch.zeros(len(batch), dtype=torch.bool, device=batch.keys.device)
        if not self.config.vectors:
            return Seen(encoded, visible, {}, blind)
        if seed is not None:
            blind = uniform(seed_of(seed, "bottleneck"), batch.keys, 1)[:, 0] < self.config.bottleneck
        return Seen(encoded, visible, model.embeddings(encoded), blind)

    def predict(self, model: Model, batch: Batch, visible: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Modality -> what its head says of its hidden tokens, (K, ...), row by row."""
        decoded = self.decoder(model, batch, self.look(model, batch, visible))
        hidden = {name: tokens.valid & ~visible[name] for name, tokens in decoded.items()}
        return {name: self.heads[name](decoded[name].x[hidden[name]]) for name in hidden}
