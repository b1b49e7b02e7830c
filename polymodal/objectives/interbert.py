"""InterBERT: masked groups in every modality, matching of every pair, and vectors of single-modality passes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from polymodal import presence
from polymodal.config import Config, nearest
from polymodal.draws import seed_of, uniform
from polymodal.losses._gathered import ignored
from polymodal.losses._lending import Everyone, Swap, everyone, gather_cells
from polymodal.losses.contrastive import contrast
from polymodal.losses.groups import own_row, span
from polymodal.losses.masking import masked_prediction
from polymodal.losses.matching import count_symbols, hard_pool, in_pool, match, tfidf
from polymodal.losses.pairing import choose, eligible_partners
from polymodal.model import ITEM, Model
from polymodal.nn.heads import predict
from polymodal.nn.match import MatchHead
from polymodal.objective import HardNegatives, Objective, ObjectiveConfig
from polymodal.tensors import Batch, Cells, Embedded, Encoded, Losses, Term
from polymodal.types import BadInput

__all__ = ["Grouping", "Interbert", "InterbertConfig", "Replacement"]


class Grouping(Config):
    """How the tokens of a modality are hidden.

    Args:
        probability: of each anchor. None: 0.10 where tokens follow one another (`Modality.sequence`), else 0.15.
        extra: in a sequence an anchor hides also the next e places, e drawn from these. (1, 2, 3) has mean length 3.
        anchors: "unit": what hides together has one draw; "token": every token is an anchor of its own (regions that
            overlap, as published).
        form: "anchors" as published; "span" one run a row, as released, whatever the probability.
        always_one: in cells of at least so many tokens one anchor is drawn where none was: 35 % of ten-token captions
            would have no target. In short cells it would hide half of what there is. None: never, as published.
        vector: "learned" (or the modality's own [MASK]); "blank": the blank cell's, as released for regions.
        random, keep: share of hidden tokens that become a random one, or stay.
    """

    probability: float | None = Field(None, ge=0, le=1)
    extra: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    anchors: Literal["unit", "token"] = "unit"
    form: Literal["anchors", "span"] = "anchors"
    always_one: int | None = Field(6, ge=1)
    vector: Literal["learned", "blank"] = "learned"
    random: float = Field(0.1, ge=0, le=1)
    keep: float = Field(0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _sums(self) -> Grouping:
        if self.random + self.keep > 1 or min(self.extra) < 0:
            raise ValueError("random + keep must be at most 1, and extra not negative")
        return self


class Replacement(Config):
    """How the mismatched rows are made.

    Args:
        share: of rows that get another row's cell in one of their modalities.
        hard: share of those whose donor is one of the most similar.
        band: similarity of a hard donor; what reaches the upper end is as good as the same.
        top: donors in a pool; the paper has 30, of a whole corpus.
        corpus: the modality by which hard donors are found in the whole training set (the paper's captions). The loader
            puts them beside the rows, and the row gets the donor's cell of any modality. "": a pool is of one batch
            and of each modality by itself.
    """

    share: float = Field(0.5, ge=0, le=1)
    hard: float = Field(0.2, ge=0, le=1)
    band: tuple[float, float] = (0.0, 0.5)
    top: int = Field(4, ge=1)
    corpus: str = ""

    @model_validator(mode="after")
    def _agrees(self) -> Replacement:
        if self.corpus and not 0 < self.hard <= 0.5:
            raise ValueError("hard must be above 0 and at most 0.5 with corpus: each row comes once an epoch")
        return self


class InterbertConfig(ObjectiveConfig):
    """Configuration of `Interbert`.

    Args:
        groups: modality name -> Grouping, where it differs from `group`.
        replacement: mismatched rows, above.
        gate: masked tokens count only where their modality is matched by another one, or is alone. `ungated` names
            modalities that count in any case: the release counts words in mismatched pairs, and regions not.
        match_hidden: width of the matching head where the model has none of its own (`model.match`): it trains the
            model and is thrown away.
        tie: predict symbols by the model's own vectors of them, as BERT does.
        modality_dropout: chance that a row's modality is kept from the mixing stages, so that any subset is known.
        masked_weight, match_weight: of the published sum.
        contrast_weight, item_weight: of the contrast between the single-modality vectors of every pair, and between
            those and the item vector; 0 as published.
    """

    kind: Literal["interbert"] = "interbert"
    group: Grouping = Grouping()
    groups: dict[str, Grouping] = Field(default_factory=dict)
    replacement: Replacement = Replacement()
    gate: bool = True
    ungated: tuple[str, ...] = ()
    match_hidden: int = Field(256, ge=1)
    tie: bool = False
    modality_dropout: float = Field(0.2, ge=0, lt=1)
    masked_weight: float = Field(1.0, ge=0)
    match_weight: float = Field(1.0, ge=0)
    contrast_weight: float = Field(1.0, ge=0)
    item_weight: float = Field(1.0, ge=0)
    temperature: float = Field(0.07, gt=0)
    false_negatives: bool = True

    @property
    def aligned(self) -> bool:
        return self.contrast_weight > 0 or self.item_weight > 0

    @property
    def trains_match(self) -> bool:
        return self.match_weight > 0

    def build(self, model: Model) -> Interbert:
        """The objective for `model`; any order of stages. Raises BadInput for a corpus the model does not have."""
        corpus = self.replacement.corpus
        if corpus and corpus not in model.names:
            known = ", ".join(model.names)
            raise BadInput("objective.replacement.corpus", f"of {known}", repr(corpus), nearest(corpus, model.names))
        return Interbert(self, model)


class Interbert(Objective):
    """Masked group modelling and matching over any subset of modalities.

    ::

        L = sum_m L_masked(m)  +  mean_{i<j} L_match(i, j)  +  mean_{i<j} L_contrast(i, j)  +  mean_m L_item(m)

    Masked groups M = union over anchors a ~ Bernoulli(p_m) of what hides with a: the next 0 to 2 tokens, boxes that
    overlap, an attribute's words, all tubes of a moment. Matching: s_ij = W (p_i * p_j), p_m = ReLU(W_m h_m); in half
    of the rows exactly one modality is another row's, and the pairs with it are mismatched.

    Needs: stages ("trunk", "towers"), with `recipes.interbert.reference` the layout of BERT. Any other order works.

    Source: Lin et al., "InterBERT: Vision-and-Language Interaction for Multi-modal Pretraining", arXiv 2003.13198
        (segments and hard negatives from descriptions of it, as the full text was not at hand); black4321/InterBERT at
        7ccabb1.
    Differences from the paper: N modalities, any subset; a donor must have all that the row has, so that rows without
        a term's modalities cannot change it; donors are of the batch of all processes, hard ones chosen
        there too or put there (`replacement.corpus`); `always_one`; `gate`; L_contrast and L_item, without which no
        vector could be searched by.
    Differences from the release: fields, set by `recipes.interbert.reference`. Its conditional masking is not here: its
        second pass reads what the first one zeroed.
    """

    def __init__(self, config: InterbertConfig, model: Model) -> None:
        super().__init__()
        self.config = config
        how = config.replacement
        self.hard = HardNegatives(how.corpus, how.hard, how.band, how.top) if how.corpus else None
        width, names = model.config.width, model.names
        self.heads = nn.ModuleDict({name: model.head(name, config.tie) for name in names})
        lacking = [n for n in names if model.modality(n).mask() is None and self._group(n).vector == "learned"]
        self.masks = nn.ParameterDict({name: nn.Parameter(torch.randn(width) * 0.02) for name in lacking})
        self.matching = None if model.matching else MatchHead(names, width, config.match_hidden)
        start = torch.tensor(math.log(1 / config.temperature))
        self.log_scale, self.log_scale_item = nn.Parameter(start.clone()), nn.Parameter(start.clone())

    def _group(self, name: str) -> Grouping:
        return self.config.groups.get(name, self.config.group)

    def decoders(self) -> Mapping[str, nn.Module]:
        return dict(self.heads.items())

    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """Losses named `masked/m`, `match/i~j`, `contrast/i~j` and `item/m`, each with its count."""
        clean = views[0]
        names = [name for name in model.names if name in clean.cells]
        swap = self.swap(model, clean, names, seed)
        batch = swap.apply(clean, self.world)
        hidden = {name: self.hide(model, batch, name, seed) for name in names}
        parts = model.tokenize(
            batch, lambda name, content, cells: self._corrupt(model, name, content, cells, hidden[name], batch, seed)
        )
        draws = {name: uniform(seed_of(seed, "drop", name), batch.keys, 2) for name in names}
        encoded = model.encode(parts, lambda p: presence.drop(p, self.config.modality_dropout, draws))
        terms = self._masked(model, batch, encoded, hidden, swap)
        terms |= self._match(model, encoded, names, swap)
        terms |= self._contrasts(model, clean, encoded, names, swap)
        embedded = {ITEM: self._item(model, encoded, swap)} if names else {}
        log = {f"hidden/{n}": h.sum() / batch.cells[n].valid.sum().clamp(min=1) for n, h in hidden.items()}
        log |= {f"mismatched/{n}": rows.float().mean() for n, rows in swap.rows.items()}
        return Losses(terms, self._weights(terms, len(model.names)), log, embedded)

    def _weights(self, terms: Mapping[str, Term], modalities: int) -> dict[str, float]:
        # Fixed denominators: a modality that a batch happens to lack must not make the other terms weigh more.
        pairs = max(modalities * (modalities - 1) // 2, 1)
        of = {
            "masked": self.config.masked_weight,
            "match": self.config.match_weight / pairs,
            "contrast": self.config.contrast_weight / pairs,
            "item": self.config.item_weight / modalities,
        }
        return {name: of[name.partition("/")[0]] for name in terms}

    # -- masked groups -----------------------------------------------------------------------------------------------

    def hide(self, model: Model, batch: Batch, name: str, seed: int) -> Tensor:
        """Which tokens of a modality are to be predicted, (B, N) bool."""
        how, modality, cells = self._group(name), model.modality(name), batch.cells[name]
        valid = modality.may_hide(cells)
        place = modality.sequence(cells.fields)
        if place is not None and how.form == "span":
            return span(valid, uniform(seed_of(seed, "span", name), batch.keys, 2))
        draws, more = (uniform(seed_of(seed, what, name), batch.keys, valid.shape[1]) for what in ("hide", "extra"))
        extra = torch.tensor(how.extra, device=valid.device)[(more * len(how.extra)).long()]
        ratio = how.probability if how.probability is not None else 0.15 if place is None else 0.10
        return presence.hide(
            valid,
            ratio,
            draws,
            modality.overlap(cells.fields),
            reach=None if place is None else (place, extra),
            each=how.anchors == "token",
            at_least_one=valid.sum(1) >= how.always_one if how.always_one and ratio else None,
        )

    def _corrupt(
        self, model: Model, name: str, content: Tensor, cells: Cells, hidden: Tensor, batch: Batch, seed: int
    ) -> Tensor:
        how, modality, chosen = self._group(name), model.modality(name), hidden[cells.valid]
        count = cells.valid.shape[1]
        fate, draw = (uniform(seed_of(seed, what, name), batch.keys, count)[cells.valid] for what in ("fate", "donor"))
        mask = self._mask(model, name).to(content.dtype)
        masked = torch.where((chosen & (fate >= how.random + how.keep))[:, None], mask, content)
        at = (chosen & (fate < how.random)).nonzero()[:, 0]
        packed = cells.packed()
        other = modality.substitute({key: value[at] for key, value in packed.items()}, draw[at])
        random = modality.embed(other) if other is not None else content[own_row(cells.valid, draw)[at]]
        return masked.index_copy(0, at, random.to(content.dtype))

    def _mask(self, model: Model, name: str) -> Tensor:
        modality = model.modality(name)
        if self._group(name).vector == "blank":
            device = next(modality.parameters()).device
            return modality.embed({key: value[:1].to(device) for key, value in modality.blank().items()})[0]
        own = modality.mask()
        return self.masks[name] if own is None else own

    def _masked(
        self, model: Model, batch: Batch, encoded: Encoded, hidden: Mapping[str, Tensor], swap: Swap
    ) -> dict[str, Term]:
        if not self.config.masked_weight:
            return {}
        terms = {}
        gate = self._gates({name: part.valid.any(1) for name, part in encoded.last.items() if name != ITEM}, swap)
        for name, hide in hidden.items():
            where = hide & encoded.last[name].valid  # what modality dropout kept from the trunk has no prediction
            if self.config.gate and name not in self.config.ungated:
                where = where & gate[name][:, None]
            modality, cells = model.modality(name), batch.cells[name]
            target = modality.target({key: value[where] for key, value in cells.fields.items()})
            state = encoded.last[name].x[where]
            prediction = predict(self.heads[name], state, modality.table())
            terms[f"masked/{name}"] = masked_prediction(prediction, target, modality.distance)
        return terms

    def _gates(self, visible: Mapping[str, Tensor], swap: Swap) -> dict[str, Tensor]:
        """modality -> (B,) bool: nothing in the row is another's, or this is not and something else is not either."""
        own = {name: there & ~swap.rows[name] for name, there in visible.items()}
        several, intact = torch.stack(list(own.values())).sum(0) > 1, self._intact(visible, swap)
        return {name: intact | (part & several) for name, part in own.items()}

    def _intact(self, visible: Mapping[str, Tensor], swap: Swap) -> Tensor:
        return ~torch.stack([there & swap.rows[name] for name, there in visible.items()]).any(0)

    # -- matching ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def swap(self, model: Model, batch: Batch, names: Sequence[str], seed: int) -> Swap:
        """Draws the mismatched rows: of each, one modality and the row whose cell it gets.

        A donor has every modality of the row, is of another group, and its cell has other content.
        """
        if not names:
            return Swap({}, {})
        how, keys, all_ = self.config.replacement, batch.keys, everyone(batch, names, self.world)
        has = all_.present[:, all_.own].T
        lacks = (has.float() @ (~all_.present).float()) > 0
        pair = (keys[:, None] * 0x9E3779B1 + all_.keys[None]).flatten()
        hard = uniform(seed_of(seed, "hard"), keys, 1)[:, 0] < how.hard
        donors, ranks = {}, []
        for name, present, digests in zip(names, all_.present, all_.digests, strict=True):
            scores = uniform(seed_of(seed, "partner", name), pair, 1).view(lacks.shape)
            eligible = ~lacks & eligible_partners(present, all_.groups, digests, all_.own)
            donors[name], found = choose(self._harder(model, batch, name, eligible, hard, all_), scores)
            rank = uniform(seed_of(seed, "which", name), keys, 1)[:, 0]
            ranks.append(rank.masked_fill(~found, -1.0))
        rank, fate = torch.stack(ranks, 1), uniform(seed_of(seed, "swap"), keys, 1)[:, 0]
        taken = (fate < how.share) & (rank.amax(1) >= 0) & (has.sum(1) > 1)
        which = rank.argmax(1)
        return Swap({name: taken & (which == at) for at, name in enumerate(names)}, donors)

    def _harder(self, model: Model, batch: Batch, name: str, eligible: Tensor, hard: Tensor, all_: Everyone) -> Tensor:
        """Eligible donors, cut down to the most similar ones in the rows `hard` that have such."""
        how = self.config.replacement
        if not how.hard or not len(eligible):
            return eligible
        if how.corpus:  # the loader chose which rows have one
            known = eligible & (batch.hard[:, None] == all_.keys[None])
            return torch.where(known.any(1, keepdim=True), known, eligible)
        similarity = self._similarity(model, batch, name, eligible, all_)
        pool = in_pool(hard_pool(similarity, eligible, how.band, how.top), eligible.shape[1])
        return torch.where((hard & pool.any(1))[:, None], pool, eligible)

    def _similarity(self, model: Model, batch: Batch, name: str, eligible: Tensor, all_: Everyone) -> Tensor:
        """How alike the cells of two rows are, (B, G): TF-IDF cosine of symbols, else cosine of mean targets."""
        modality, cells = model.modality(name), batch.cells[name]
        symbols = modality.symbols(cells.fields)
        if symbols is None:
            target = modality.target(cells.packed()).float()
            mean = F.normalize(presence.pool(presence.scatter(target, cells.valid)).z, dim=-1, eps=1e-6)
            return mean @ self.world.gather(mean).T
        every = gather_cells(Cells({"symbol": symbols}, cells.valid), self.world)
        itself = all_.places[:, None] == torch.arange(eligible.shape[1], device=eligible.device)
        return tfidf(count_symbols(every.fields["symbol"], every.valid), eligible | itself, all_.own)

    def _match(self, model: Model, encoded: Encoded, names: Sequence[str], swap: Swap) -> dict[str, Term]:
        if not self.config.match_weight:
            return {}
        head = cast(MatchHead, model.matching or self.matching)
        states = {name: model.pooled(encoded.last[name]) for name in names}
        pooled = {name: head.pool(name, state.z) for name, state in states.items()}
        terms = {}
        for i, j in combinations(names, 2):
            counted, mismatched = states[i].present & states[j].present, swap.rows[i] | swap.rows[j]
            terms[f"match/{i}~{j}"] = match(head(pooled[i], pooled[j]), mismatched, counted)
        return terms

    # -- vectors -----------------------------------------------------------------------------------------------------

    def _item(self, model: Model, encoded: Encoded, swap: Swap) -> Embedded:
        """Item vectors (B, E) of the rows in which nothing is another's."""
        visible = {name: part.valid.any(1) for name, part in encoded.last.items() if name != ITEM}
        item = model.shared(model.embeddings(encoded, [ITEM])[ITEM])
        present = item.present & self._intact(visible, swap)
        return Embedded(item.z.masked_fill(~present[:, None], 0.0), present)

    def _contrasts(
        self, model: Model, clean: Batch, encoded: Encoded, names: Sequence[str], swap: Swap
    ) -> dict[str, Term]:
        config = self.config
        if not names or not (config.contrast_weight or config.item_weight):
            return {}
        alone = model.alone(model.tokenize(clean))
        ignore = ignored(clean, names, self.world) if config.false_negatives else None
        terms = {}
        for i, j in combinations(range(len(names)), 2) if config.contrast_weight else ():
            one, other, skip = alone[names[i]], alone[names[j]], None if ignore is None else ignore[i, j]
            terms[f"contrast/{names[i]}~{names[j]}"] = self._contrast(clean, one, other, self.log_scale, skip)
        item = self._item(model, encoded, swap)
        for i, name in enumerate(names if config.item_weight else ()):
            skip = None if ignore is None else ignore[i, i]
            terms[f"item/{name}"] = self._contrast(clean, item, alone[name], self.log_scale_item, skip)
        return terms

    def _contrast(self, batch: Batch, one: Embedded, other: Embedded, log_scale: Tensor, ignore: Tensor | None) -> Term:
        gather, both = self.world.gather, one.present & other.present
        return contrast(
            one.z,
            both,
            gather(other.z),
            gather(both),
            log_scale.clamp(max=math.log(100.0)).exp(),
            all_anchors=gather(one.z),
            all_present=gather(both),
            offset=self.world.rank * len(batch),
            ignore=ignore,
        )
