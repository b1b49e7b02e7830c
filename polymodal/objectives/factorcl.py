"""FactorCL: what modalities share and what each alone knows, by bounds of mutual information from below and above."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from polymodal.losses import disentangle, information
from polymodal.losses.critics import CriticConfig, held, mlp
from polymodal.model import ITEM, Model
from polymodal.objective import Objective, ObjectiveConfig
from polymodal.objectives._factors import (
    CLUBS,
    FAMILIES,
    GIVEN,
    SHARED,
    Context,
    Faced,
    Faces,
    Inputs,
    Link,
    Rest,
    Weights,
    block,
    fused,
    lengthened,
    mean,
)
from polymodal.tensors import Batch, Embedded, Losses, Parts, Term
from polymodal.types import BadInput

__all__ = ["FactorCL", "FactorCLConfig", "Weights"]


class FactorCLConfig(ObjectiveConfig):
    """Configuration of `FactorCL`.

    Args:
        label: the label of the catalogue that is the task Y (FactorCL-SUP); "" takes a second augmented view for it
            (FactorCL-SSL). Rows without the label count in no term that needs it.
        structure: of more than two: "rest" relates each to all others of its row, 5 N terms; "pairs" every two,
            4 N (N - 1) / 2 + N terms. With two modalities both are the paper.
        context: what the rest is: "sampled" all others of the row or, half of the time, a random part of them, so that
            every pattern is met; "all"; or "random_order" those before it in a random order of the row's modalities,
            whose informations add up to that of all (chain rule).
        conditional: "within_class" takes negatives of the same label; "kernel" weights them by how near what is given
            is (`kernel_width`, `ridge`); "concat" gives it to the critic but draws negatives from everywhere, as
            released, which bounds I([A, C]; [B, C]) instead.
        given_sides: "both" critics' sides see what is given, or the "left" alone (synthetic notebook).
        club_given_view: the notebook and IRFL code give CLUB the "clean" head's output twice; "augmented" as published.
        critic, weights: above.
        clamp: CLUB terms are at least 0; without, an outdated critic can be driven below.
        club_diagonal: CLUB's mean over all pairs has the positives in it, as released.
        critic_steps: of the CLUB critics after each step.
        align: weight of making the shared heads of both sides agree in every direction (`disentangle.agree`).
        separate: weight of taking out of the unique heads what the shared ones say (`disentangle.apart`, measured by
            `penalty`) and of making their columns differ (`disentangle.spread`).
        two_step: `separate` moves nothing of the shared heads, which stand as if trained before.
        penalised: "heads": `align` and `separate` leave the encoders alone.
        heads: that make Z_S and Z_U: "published" are cross with club_given, and task with club and cross_given; "core"
            are cross alone and task alone, those that no other term pulls at; "canonical" are no heads but the
            directions of the two vectors that correlate and those that do not (`disentangle.Canonical`), which leaves
            training as it is.
        readout: "encoder": all terms read the modality vector (as the notebook probes). "factors": shared terms do,
            unique terms its block of the item vector.
        label_width: numbers that stand for a label in a critic (`information.codes`).
    """

    kind: Literal["factorcl"] = "factorcl"
    label: str = ""
    structure: Literal["rest", "pairs"] = "rest"
    context: Context = "sampled"
    conditional: Literal["within_class", "kernel", "concat"] = "concat"
    given_sides: Literal["both", "left"] = "both"
    club_given_view: Literal["augmented", "clean"] = "augmented"
    kernel_width: float = Field(1.0, gt=0)
    ridge: float = Field(0.1, gt=0)
    critic: CriticConfig = CriticConfig()
    weights: Weights = Weights()
    clamp: bool = True
    club_diagonal: bool = True
    critic_steps: int = Field(1, ge=0)
    align: float = Field(0.0, ge=0)
    separate: float = Field(0.0, ge=0)
    penalty: Literal["correlation", "hsic"] = "correlation"
    two_step: bool = True
    penalised: Literal["encoders", "heads"] = "encoders"
    heads: Literal["published", "core", "canonical"] = "published"
    readout: Literal["encoder", "factors"] = "encoder"
    label_width: int = Field(32, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> FactorCLConfig:
        if self.conditional == "within_class" and not self.label:
            raise ValueError("conditional='within_class' needs a label; without one use 'concat' or 'kernel'")
        if self.heads == "canonical" and (self.align or self.separate or self.readout == "factors"):
            raise ValueError("heads='canonical' trains nothing: no align, separate or readout='factors' beside it")
        return self

    def build(self, model: Model) -> FactorCL:
        """The objective; `model` may have any stages, and for readout="factors" a unique part."""
        config = model.config
        if self.readout == "factors" and not config.unique:
            raise BadInput("model.unique", "a width for the unique blocks that readout='factors' trains", 0)
        return FactorCL(self, model.names, config.embedding, config.unique if self.readout == "factors" else None)


class FactorCL(Objective):
    """Factorised contrastive learning.

    ::

        maximise  NCE(1;2) - CLUB(1;2|C) + NCE(1;C) + NCE(2;C) - CLUB(1;2) + NCE(1;2|C)

    C is the label or the augmented view. Names: `cross` NCE(1;2), `club_given` CLUB(1;2|C), `task` NCE(i;C), `club`
    CLUB(1;2), `cross_given` NCE(1;2|C). A term's value is what is minimised: log n minus the bound for NCE. The bounds
    themselves are logged, and for each CLUB term how far it lies above the NCE of the same critic, which is never below
    0. The critics of CLUB are moved by `critic_losses` alone and are fixed functions to `forward`.

    With N modalities side 2 is the rest: the mean over the row's other modalities of a linear map each, then an MLP.
    Where a trunk comes first, a modality's vector is read from a pass of that modality alone: vectors that have seen
    one another share everything.

    Args:
        config: above. names: modalities. width: of the vectors that shared terms read; unique: of those that unique
            terms read, None for the same.

    Source: Liang et al., "Factorized Contrastive Learning: Going Beyond Multi-view Redundancy", NeurIPS 2023, arXiv
        2306.05268, equations 94 to 96 and algorithm 3; pliang279/FactorCL. One-vs-rest, random order: ours.
    Differences: presence; dot critics (`critic.kind`); CLUB clamped at 0 (`clamp`); within-class negatives, an option;
        labels by sign codes (`label_width`); the critics' step uses the batch of the main step instead of another one;
        both views are augmented; `fusion`. The paper's heads do not factorise on its own data (benchmark
        `shared_unique`): `align`, `separate` and `heads` are what makes them.
    """

    def __init__(self, config: FactorCLConfig, names: Sequence[str], width: int, unique: int | None = None) -> None:
        super().__init__()
        self.config, self.names = config, tuple(names)
        self.views, self.label = (1, config.label) if config.label else (2, "")
        self.critic_steps, self.trains_unique = config.critic_steps, unique is not None
        own = width if unique is None else unique
        self.widths = {family: width if family in SHARED else own for family in FAMILIES}
        pairs = config.structure == "pairs" or len(names) == 2
        self.nodes: dict[str, tuple[str, ...]] = (
            {f"{i}~{j}": (i, j) for i, j in itertools.combinations(names, 2)}
            if pairs
            else {name: (name,) for name in (names if len(names) > 1 else ())}
        )
        shape = config.critic
        self.links = nn.ModuleDict({f: self._links(f) for f in FAMILIES})
        out = shape.head or own
        self.task_heads = nn.ModuleDict({n: mlp([own, *[own] * shape.head_layers, out]) for n in names})
        given = config.label_width if config.label else out
        self.task_critics = nn.ModuleDict({n: shape.build(out, given) for n in names})
        rests = {} if pairs or len(names) < 2 else {"shared": width, "unique": own}
        self.rests = nn.ModuleDict({kind: Rest(names, w, config.context) for kind, w in rests.items()})
        split = [node for node in self.nodes if config.heads == "canonical"]
        self.canonical = nn.ModuleDict({node: disentangle.Canonical(width) for node in split})
        self.log_scale = nn.Parameter(torch.tensor(14.0).log())

    def _links(self, family: str) -> nn.ModuleDict:
        shape, extra = self.config.critic, self._extra(family)
        return nn.ModuleDict({node: Link(self.widths[family], shape, extra) for node in self.nodes})

    def _extra(self, family: str) -> tuple[int, int]:
        """How much wider a critic's sides are for what is given."""
        if family not in GIVEN or (self.config.conditional == "kernel"):
            return 0, 0
        more = self.config.label_width if self.config.label else self.config.critic.head or self.widths[family]
        return more, more if self.config.given_sides == "both" else 0

    def critic_parameters(self) -> list[nn.Parameter]:
        """Of the CLUB critics."""
        return [p for f in CLUBS for node in self.nodes for p in self._link(f, node).critic.parameters()]

    def _link(self, family: str, node: str) -> Link:
        return cast(Link, cast(nn.ModuleDict, self.links[family])[node])

    # -- from a model ------------------------------------------------------------------------------------------------

    def forward(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """Terms `cross/i~j`, ... (`cross/i` for one against the rest), `task/i`, `align/i~j`, `apart/i`, `fusion/m`."""
        inputs, embedded = self._read(model, views)
        losses = self.terms(inputs, seed)
        wanted, scale = self.config.weights.fusion, self.log_scale.clamp(max=4.6).exp()
        fusion = fused(model.shared(embedded[ITEM]), embedded, scale, self.world) if wanted else {}
        weights = dict.fromkeys(fusion, wanted / len(self.names))
        return Losses({**losses.terms, **fusion}, {**losses.weights, **weights}, losses.log, embedded)

    def critic_losses(self, model: Model, views: Sequence[Batch], seed: int) -> Losses:
        """The NCE of the CLUB critics on vectors that stand still."""
        with torch.no_grad():
            inputs, _ = self._read(model, views)
        return self.critic_terms(inputs, seed)

    def _read(self, model: Model, views: Sequence[Batch]) -> tuple[Inputs, dict[str, Embedded]]:
        first: dict[str, Embedded] = {}
        shared: list[dict[str, Embedded]] = []
        unique: list[dict[str, Embedded]] = []
        for at, view in enumerate(views):
            parts = model.tokenize(view)
            # the item vector only of the first view: what else it takes, the terms do not read
            every = self._vectors(model, parts, item=at == 0)
            first = first or every
            own = {n: lengthened(v) for n, v in every.items() if n != ITEM}
            shared.append(own)
            unique.append({n: lengthened(block(model, n, parts[n])) for n in own} if self.trains_unique else own)
        return Inputs(shared, unique, views[0].keys, views[0].labels), first

    def _vectors(self, model: Model, parts: Parts, item: bool) -> dict[str, Embedded]:
        if model.config.stages[0] == "towers":
            return model.embeddings(model.encode(parts), None if item else list(parts))
        own = {n: model.embeddings(model.encode({n: part}), [n])[n] for n, part in parts.items()}
        return own | (model.embeddings(model.encode(parts), [ITEM]) if item else {})

    # -- from vectors ------------------------------------------------------------------------------------------------

    def terms(self, inputs: Inputs, seed: int) -> Losses:
        """The terms of vectors of any origin, and their bounds in the log."""
        wanted, faces = self.config.weights, self._faces(inputs, seed)
        terms: dict[str, Term] = {}
        log: dict[str, Tensor] = {}
        for family in FAMILIES:
            for node in faces[family] if getattr(wanted, family) else ():
                found = self._faced(family, node, faces, inputs.labels, family in CLUBS)
                terms[f"{family}/{node}"] = self._bound(f"{family}/{node}", family in CLUBS, found, log)
        for name in inputs.unique[0] if wanted.task else ():
            terms[f"task/{name}"] = self._bound(f"task/{name}", False, self._task(name, inputs), log)
        terms |= self._factorise(faces)
        self._gather_moments(faces)
        # the paper at two modalities; fixed denominators, so what a batch lacks does not make the rest weigh more
        links, sides = max(len(self.nodes), 1), len(self.names) / 2
        of = {f: getattr(wanted, f) / links for f in FAMILIES} | {"task": wanted.task / sides}
        of |= {"align": self.config.align / links}
        of |= dict.fromkeys(("apart", "spread"), self.config.separate / links)
        return Losses(terms, {name: of[name.partition("/")[0]] for name in terms}, log)

    def critic_terms(self, inputs: Inputs, seed: int) -> Losses:
        """What the CLUB critics minimise: the NCE loss of the heads' outputs, which stand still."""
        terms = {}
        with torch.no_grad():
            faces = self._faces(inputs, seed)
        for family in CLUBS:
            for node in faces[family] if getattr(self.config.weights, family) else ():
                terms[f"{family}/{node}"] = self._faced(family, node, faces, inputs.labels, None).nce()
        return Losses(terms)

    def factors(self, vectors: Inputs, seed: int = 0) -> dict[str, Tensor]:
        """Z_S and Z_U of the first view: "shared/1~2/1" is that of modality 1 as the pair 1~2 has it. (B, ...)."""
        faces, found = self._faces(vectors, seed), {}
        for node, sides in self.nodes.items():
            if node in faces["cross"]:
                for side, name in enumerate(sides):
                    found[f"shared/{node}/{name}"], found[f"unique/{node}/{name}"] = self._parts(faces, node, side)
        return found

    def _faces(self, inputs: Inputs, seed: int) -> Faces:
        """family -> node -> per view, the vectors of the two sides."""
        kinds = {"shared": inputs.shared, "unique": inputs.unique}
        met = {kind: self._meet(kind, views, inputs.keys, seed) for kind, views in kinds.items()}
        return {family: met["shared" if family in SHARED else "unique"] for family in FAMILIES}

    def _meet(
        self, kind: str, views: Sequence[Mapping[str, Embedded]], keys: Tensor, seed: int
    ) -> dict[str, list[tuple[Embedded, Embedded]]]:
        met = {}
        for node, sides in self.nodes.items():
            if all(name in views[0] for name in sides) and len(views[0]) > 1:
                rest = cast(Rest, self.rests[kind]) if len(sides) == 1 else None
                met[node] = [
                    (v[sides[0]], v[sides[1]] if rest is None else rest(sides[0], v, keys, seed)) for v in views
                ]
        return met

    def _faced(self, family: str, node: str, faces: Faces, labels: Tensor, hold: bool | None) -> Faced:
        """Scores of a two-sided term. `hold` keeps the critic fixed; None keeps all but the critic fixed."""
        config, link, views, gather = self.config, self._link(family, node), faces[family][node], self.world.gather
        present = torch.stack([side.present for view in views for side in view]).all(0)
        given, same, weights = family in GIVEN, None, None
        if given and config.label:
            present = present & (labels >= 0)
        with torch.set_grad_enabled(torch.is_grad_enabled() and hold is not None):
            a, b = (head(side.z) for head, side in zip((link.left, link.right), views[0], strict=True))
            if given:
                known = self._given(family, link, views, labels)
                if config.conditional == "kernel":
                    weights = self._kernel(known, labels, present)
                else:
                    a = torch.cat([a, known[0]], 1)
                    b = torch.cat([b, known[1]], 1) if config.given_sides == "both" else b
            a = gather(a)
        if given and config.conditional == "within_class":
            same = information.same_class(labels, gather(labels))
        pairs = information.pairing(present, gather(present), self.world.rank * len(present), same)
        return Faced(held(link.critic, a, b) if hold else link.critic(a, b), pairs, weights)

    def _given(
        self, family: str, link: Link, views: Sequence[tuple[Embedded, Embedded]], labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.config.label:
            code = information.codes(labels, self.config.label_width)
            return code, code
        left, right = views[0 if family == "club_given" and self.config.club_given_view == "clean" else -1]
        return link.left(left.z), link.right(right.z)

    def _kernel(self, known: tuple[Tensor, Tensor], labels: Tensor, present: Tensor) -> Tensor:
        gather = self.world.gather
        if self.config.label:
            every = gather(labels)
            gram = information.same_class(every, every).float()
        else:
            gram = information.rbf(gather(F.normalize(torch.cat(known, 1), dim=1)), self.config.kernel_width)
        begin = self.world.rank * len(present)
        return information.kernel_weights(gram, gather(present), self.config.ridge)[:, begin : begin + len(present)]

    def _task(self, name: str, inputs: Inputs) -> Faced:
        views = [view[name] for view in inputs.unique]
        head, present = self.task_heads[name], torch.stack([v.present for v in views]).all(0)
        if self.config.label:
            present = present & (inputs.labels >= 0)
            b = information.codes(inputs.labels, self.config.label_width)
        else:
            b = head(views[1].z)
        gather = self.world.gather
        pairs = information.pairing(present, gather(present), self.world.rank * len(present))
        return Faced(self.task_critics[name](gather(head(views[0].z)), b), pairs, None)

    def _bound(self, name: str, upper: bool, faced: Faced, log: dict[str, Tensor]) -> Term:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not upper):
            loss = faced.nce()
        log[f"nce/{name}"] = faced.capacity() - loss.value.detach()
        if not upper:
            return loss
        high = faced.club(self.config.club_diagonal)
        log[f"club/{name}"] = high.value.detach()
        log[f"gap/{name}"] = high.value.detach() - log[f"nce/{name}"]
        if not self.config.clamp:
            return high
        # clamped by the mean over all processes, each of which has a part of it
        below = self.world.gather((high.value * high.count).detach()[None]).sum() < 0
        return Term(high.value.masked_fill(below, 0.0), high.count)

    # -- factors -----------------------------------------------------------------------------------------------------

    def _stood(self, vector: Embedded) -> Embedded:
        """Without gradient where penalties move heads alone; not where encoders make the factors themselves."""
        still = self.config.penalised == "heads" and not self.trains_unique
        return Embedded(vector.z.detach(), vector.present) if still else vector

    def _parts(self, faces: Faces, node: str, side: int) -> tuple[Tensor, Tensor]:
        """Z_S and Z_U of one side of a node."""
        shared, unique = (self._stood(faces[family][node][0][side]).z for family in ("cross", "club"))
        if self.trains_unique:
            return shared, unique
        if node in self.canonical:
            return cast(disentangle.Canonical, self.canonical[node]).split(shared, side)
        core, which = self.config.heads == "core", ("left", "right")[side]
        s = [getattr(self._link(f, node), which)(shared) for f in (("cross",) if core else SHARED)]
        u = [getattr(self._link(f, node), which)(unique) for f in (() if core else ("club", "cross_given"))]
        return torch.cat(s, 1), torch.cat([self.task_heads[self.nodes[node][side]](unique), *u], 1)

    def _factorise(self, faces: Faces) -> dict[str, Term]:
        config, gather, terms = self.config, self.world.gather, {}
        for node, sides in self.nodes.items():
            if node not in faces["cross"]:
                continue
            left, right = (self._stood(side) for side in faces["cross"][node][0])
            mine = left.present & right.present
            every = gather(mine)
            if config.align:
                link = self._link("cross", node)
                a, b = (left.z, right.z) if self.trains_unique else (link.left(left.z), link.right(right.z))
                terms[f"align/{node}"] = disentangle.agree(gather(a), gather(b), every, mine)
            if config.separate:
                parts = [self._parts(faces, node, side) for side in range(len(sides))]
                both = [(gather(s.detach() if config.two_step else s), gather(u)) for s, u in parts]
                terms[f"apart/{node}"] = mean([disentangle.apart(u, s, every, mine, config.penalty) for s, u in both])
                terms[f"spread/{node}"] = mean([disentangle.spread(u, every, mine) for _, u in both])
        return terms

    def _gather_moments(self, faces: Faces) -> None:
        """What `heads="canonical"` is computed from, of the first view."""
        gather = self.world.gather
        for node in [n for n in self.canonical if self.training and n in faces["cross"]]:
            a, b = faces["cross"][node][0]
            into = cast(disentangle.Canonical, self.canonical[node])
            into.update(gather(a.z.detach()), gather(b.z.detach()), gather(a.present & b.present))
