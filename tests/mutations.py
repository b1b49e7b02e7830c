# ruff: noqa: E501 (the defects are whole lines of code)
"""Put known defects back into the code, one by one, and see the tests catch them.

    python tests/mutations.py            all of them, a table, exit status 1 if one survives
    python tests/mutations.py --list
    python tests/mutations.py --only "absent kept as negatives"

The first ten are those of the design (section Absence): most were found in published code. Each works on a copy of the
package and the tests in a temporary directory; the checkout is not touched. A defect is a piece of text that must occur
exactly once in its file, so that a change of the code cannot turn it into nothing unnoticed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MUTATIONS", "Mutation", "check"]

ROOT = Path(__file__).resolve().parent.parent
ABSENCE = "tests/contract/test_absence.py"
CONTRAST = "tests/unit/losses/test_losses_contrastive.py"
PRESENCE = "tests/unit/test_presence.py"
SCALE = "tests/unit/objectives/test_scale.py"
INTERBERT = "tests/unit/objectives/test_interbert.py"
GOLDEN = "tests/parity/test_scale_golden.py"
ATTENTION = "tests/unit/nn/test_nn_attention.py"
MODEL = "tests/unit/test_model.py"
TRAINER = "tests/unit/train/test_train_trainer.py"
CHECKPOINT = "tests/unit/train/test_train_checkpoint.py"
CROSS = "tests/unit/nn/test_nn_cross.py"
STREAMS = "tests/unit/objectives/test_streams.py"
NEGATIVES = "tests/unit/catalogue/test_catalogue_negatives.py"
RANKS = "tests/unit/train/test_train_distributed.py"
SIGMOID = "tests/unit/losses/test_losses_sigmoid.py"
SUPERVISED = "tests/unit/losses/test_losses_supervised.py"
MULTILINEAR = "tests/unit/losses/test_losses_multilinear.py"
GATHERED = "tests/unit/losses/test_losses_gathered.py"
PAIRS = "tests/unit/objectives/test_pair_objectives.py"
HIGHER = "tests/unit/objectives/test_higher_order_objectives.py"


@dataclass(frozen=True)
class Mutation:
    """A defect: `old` in polymodal/`file` becomes `new`, which `tests` must notice. Without `file` it waits for code."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _m(name: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name, file, old, new, tests)


_BOTH = "both = candidates_present[:, None] & candidates_present[None]  # (M, M, G)"
_MASK = "masked = torch.where((chosen & (what >= self.random + self.keep))[:, None], vector.to(content.dtype), content)"

MUTATIONS: tuple[Mutation, ...] = (
    # -- the ten of the design -----------------------------------------------------------------------------------------
    _m(
        "candidates of a contrast not masked",
        "losses/contrastive.py",
        "c = candidates.masked_fill(~candidates_present[..., None], 0.0).float()",
        "c = candidates.float()",
        CONTRAST,
    ),
    _m(
        "absent modality imputed with attended zeros",
        "presence.py",
        "torch.tensor(lengths)[:, None])",
        "torch.tensor(lengths).clamp(min=1)[:, None])",
        ABSENCE,
    ),
    _m(
        "absence mask dropped on the way into the trunk",
        "nn/stages.py",
        "presence.split(self.stack(presence.join(joined)), joined)",
        "presence.split(self.stack(Tokens(presence.join(joined).x, torch.ones_like(presence.join(joined).valid))), joined)",
        ABSENCE,
    ),
    _m(
        "mean divides by everything",
        "presence.py",
        "return Term(total / count.clamp(min=1), count)",
        "return Term(total / max(mask.numel(), 1), count)",
        ABSENCE,
    ),
    _m(
        "pooled row of an absent modality counted as present",
        "presence.py",
        "return Embedded(total / count.clamp(min=1), count[:, 0] > 0)",
        "return Embedded(total / count.clamp(min=1), count[:, 0] >= 0)",
        ABSENCE,
    ),
    _m(
        "masks drawn on absent tokens",
        "presence.py",
        "return valid & (draws < ratio)",
        "return draws < ratio",
        PRESENCE,
    ),
    _m(
        "sigmoid loss counts pairs with an absent side",
        "losses/sigmoid.py",
        "weight = present[rows, None] & candidates_present[None]",
        "weight = torch.ones_like(positive)",
        SIGMOID,
    ),
    _m(
        "content left in absent tokens",
        "presence.py",
        "return Tokens(tokens.x.masked_fill(~tokens.valid[..., None], 0.0), tokens.valid)",
        "return tokens",
        PRESENCE,
    ),
    _m(
        "candidates with an absent side kept as negatives",
        "losses/contrastive.py",
        "negative = both[:, :, None, :] & ~positive",
        "negative = (~positive).expand(len(a), len(a), -1, -1)",
        ABSENCE,
    ),
    _m(
        "CLUB's product of marginals includes absent pairs",
        "losses/information.py",
        "mean = scores.masked_fill(~others, 0.0).sum(1) / others.sum(1).clamp(min=1)",
        "mean = scores.mean(1)",
        "tests/unit/losses/test_losses_information.py",
    ),
    # -- absence, further ----------------------------------------------------------------------------------------------
    _m(
        "half-absent candidates kept as negatives",
        "losses/contrastive.py",
        _BOTH,
        "both = candidates_present[None].expand(len(c), -1, -1)",
        CONTRAST,
    ),
    _m(
        "fusion keeps absent candidates",
        "losses/contrastive.py",
        "negative = candidates_present[None] & ~positive",
        "negative = ~positive",
        ABSENCE,
    ),
    _m(
        "absent rows keep a vector",
        "nn/projection.py",
        "return Embedded(z * present[:, None], present)",
        "return Embedded(z, present)",
        MODEL,
    ),
    _m(
        "absent content is content to compare",
        "losses/contrastive.py",
        "(digests[:, :, None] == every_digest[:, None, :]) & (digests != 0)[:, :, None]",
        "(digests[:, :, None] == every_digest[:, None, :])",
        CONTRAST,
    ),
    _m(
        "seconds of a row are taken for those of a step",
        "compare/_budget.py",
        "until = [(at + 1) * batch_size / rate",
        "until = [(at + 1) / rate",
        "tests/unit/compare/test_compare_figures.py",
    ),
    _m(
        "harmonised softmax counts the absent",
        "losses/harmonise.py",
        "scores = s.masked_fill(~pairs, -torch.inf)",
        "scores = s",
        ABSENCE,
        SCALE,
    ),
    _m(
        "harmonised softmax of an absent row is NaN",
        "losses/harmonise.py",
        "share = share.nan_to_num(0.0)",
        "share = share * 1.0",
        "tests/unit/losses/test_losses_harmonise.py",
        ABSENCE,
    ),
    _m(
        "modality dropout takes the last one",
        "presence.py",
        "keep = (fate >= probability).scatter(1, last, True)",
        "keep = fate >= probability",
        PRESENCE,
    ),
    _m(
        "dropped tokens are predicted",
        "objectives/scale.py",
        "where = hide & parts[name].valid",
        "where = hide",
        "tests/contract/test_training.py",
        SCALE,
        ABSENCE,
    ),
    _m(
        "rows of an empty batch left out of the schema",
        "train/trainer.py",
        "presence.complete(view, self.blanks).to(self.device)",
        "view.to(self.device)",
        TRAINER,
    ),
    # -- harmonised weights, masking, contrast -------------------------------------------------------------------------
    _m(
        "softmax over the wrong axis",
        "losses/harmonise.py",
        "else scores.softmax(-1)",
        "else scores.softmax(-2)",
        GOLDEN,
        "tests/unit/losses/test_losses_harmonise.py",
    ),
    _m(
        "a modality agrees with itself",
        "losses/harmonise.py",
        "& ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)",
        "",
        GOLDEN,
        "tests/unit/losses/test_losses_harmonise.py",
    ),
    _m("weights are not detached", "objectives/scale.py", "s = s.detach() if how.detach else s", "s = s", SCALE),
    _m(
        "heads read the towers",
        "objectives/scale.py",
        'encoded.last if self.config.heads_input == "trunk" else model.unimodal(encoded)',
        "model.unimodal(encoded)",
        SCALE,
    ),
    _m("mask token keeps its content", "losses/corruption.py", _MASK, "masked = content", SCALE),
    _m(
        "position lost under the mask",
        "model.py",
        "placed = content + modality.positions(fields)",
        "placed = content + modality.positions(fields) * (content != 0)",
        MODEL,
    ),
    _m(
        "donor tokens from other rows",
        "losses/corruption.py",
        "content.index_select(0, starts + (donor[valid] * own).long().clamp(max=own - 1))",
        "content[(donor[valid] * len(content)).long().clamp(max=len(content) - 1)]",
        SCALE,
    ),
    _m(
        "draws depend on the place in the batch",
        "draws.py",
        "row = _mix(keys + seed)[:, None]",
        "row = _mix(torch.arange(len(keys), device=keys.device) + seed)[:, None]",
        "tests/unit/test_draws.py",
    ),
    _m(
        "draws depend on padding",
        "draws.py",
        "_mix(row + (counter + 1) * _GOLDEN)",
        "_mix(row + (count - counter) * _GOLDEN)",
        ABSENCE,
    ),
    _m(
        "units torn apart",
        "presence.py",
        "return valid & (tied & drawn[:, :, None]).any(1)",
        "return valid & (draws < ratio)",
        PRESENCE,
    ),
    _m(
        "siblings are negatives",
        "losses/contrastive.py",
        "(groups[:, None] == every_group[None])[None, None] | same[:, None]",
        "same[:, None]",
        CONTRAST,
        SCALE,
    ),
    _m(
        "weights on one side of a pair only",
        "losses/contrastive.py",
        "return (upper + upper.transpose(1, 2))",
        "return upper",
        CONTRAST,
    ),
    # -- other contrastive methods ---------------------------------------------------------------------------------------
    _m(
        "sigmoid loss divides by rows with an absent side",
        "losses/sigmoid.py",
        'count = present.sum() if normalise == "present" else',
        'count = torch.tensor(len(a), device=a.device) if normalise == "present" else',
        SIGMOID,
    ),
    _m(
        "a pair of a graph is every pair",
        "losses/_gathered.py",
        "return tuple((i, i + 1) for i in range(count - 1))",
        "return tuple((i, j) for i in range(count) for j in range(i + 1, count))",
        GATHERED,
        PAIRS,
    ),
    _m(
        "content of absent cells makes false negatives",
        "losses/_gathered.py",
        "batch.digests.get(name, none).where(batch.cells[name].present, none) if",
        "batch.digests.get(name, none) if",
        GATHERED,
    ),
    _m(
        "views of rows without the modality are candidates",
        "losses/ntxent.py",
        "        taking = taking & rows",
        "        taking = taking | rows",
        SUPERVISED,
    ),
    _m(
        "views across ranks take the wrong positive",
        "losses/ntxent.py",
        "offset=world.rank * len(taking)",
        "offset=0",
        "tests/unit/train/test_train_distributed_contrastive.py",
    ),
    _m(
        "supervised contrast keeps half-absent candidates",
        "losses/supervised.py",
        "both = (candidates_present[:, None] & candidates_present[None])[:, :, None, :]",
        "both = (candidates_present[:, None] | candidates_present[None])[:, :, None, :]",
        SUPERVISED,
    ),
    _m(
        "shuffles take rows that lack the modality",
        "losses/multilinear.py",
        "return draws.masked_fill(~eligible, 2.0).argsort(stable=True)",
        "return draws.argsort(stable=True)",
        MULTILINEAR,
    ),
    _m(
        "a row's own tuple is its negative",
        "losses/multilinear.py",
        "negative = negative & ~own",
        "negative = negative | own",
        MULTILINEAR,
    ),
    _m(
        "missing vectors of another modality",
        "objectives/symile.py",
        "[F.normalize(self.missing[name], dim=0) for name in self.names]",
        "[F.normalize(p, dim=0) for p in self.missing.values()]",
        HIGHER,
    ),
    _m(
        "volumes of different subsets compete",
        "losses/volume.py",
        "((there, negative & same_subset), (back, negative))",
        "((there, negative), (back, negative))",
        "tests/unit/losses/test_losses_volume.py",
    ),
    _m(
        "masked fusions of absent rows are negatives",
        "losses/masked_fusion.py",
        "negative = every[None] & ~itself",
        "negative = (~itself).expand(len(q), len(every))",
        "tests/unit/losses/test_losses_masked_fusion.py",
    ),
    _m(
        "masked fusions lose a whole modality",
        "objectives/comm.py",
        "keep = (draws >= self.config.mask_ratio).scatter(1, last, True)",
        "keep = draws >= self.config.mask_ratio",
        HIGHER,
    ),
    _m(
        "a head normalises by rows that are not there",
        "presence.py",
        "squares = (x - mean).masked_fill(~present[:, None], 0.0).square().sum(0)",
        "squares = (x - mean).square().sum(0)",
        "tests/unit/nn/test_nn_heads.py",
    ),
    _m(
        "each process normalises by its own rows",
        "presence.py",
        "mean = world.gather(x.sum(0)[None]).sum(0) / least",
        "mean = x.sum(0) / least",
        "tests/unit/train/test_train_distributed_contrastive.py",
    ),
    _m(
        "a head knows rows that its term does not count",
        "objectives/comm.py",
        "self.head(Embedded(item.z, item.present & rows), self.world)",
        "self.head(item, self.world)",
        HIGHER,
    ),
    _m(
        "a single row is remembered as the variance",
        "nn/heads.py",
        "rate = self.momentum * (count > 1)",
        "rate = self.momentum * (count > 0)",
        "tests/unit/nn/test_nn_heads.py",
    ),
    _m(
        "a blend takes what was not looked at for impossible",
        "tasks/blend.py",
        "p = np.clip(np.where(said >= 0, said, 0.5), _EDGE, 1 - _EDGE)",
        "p = np.clip(said, _EDGE, 1 - _EDGE)",
        "tests/unit/tasks/test_tasks_blend.py",
    ),
    _m(
        "what all seen items say counts like what one says",
        "workflow/recommend_eval.py",
        "len(texts), repeated=True)",
        "len(texts))",
        "tests/unit/workflow/test_workflow_recommending.py",
    ),
    _m(
        "a lucky peak is taken for a hill",
        "tasks/blend.py",
        "values = _smooth(np.asarray([self.value(way) for way in ways]))",
        "values = np.asarray([self.value(way) for way in ways])",
        "tests/unit/tasks/test_tasks_blend.py",
    ),
    _m(
        "a search may count against what it finds",
        "tasks/blend.py",
        "np.asarray([name not in lists for name in names])",
        "np.asarray([True for name in names])",
        "tests/unit/tasks/test_tasks_blend.py",
    ),
    _m(
        "a blend is learnt from what it is measured on",
        "workflow/retrieval.py",
        "replace(settings, split=settings.learn_split, every_pair=False)",
        "replace(settings, every_pair=False)",
        "tests/unit/workflow/test_workflow_retrieval.py",
    ),
    _m(
        "the read-out moves what it reads",
        "objectives/comm.py",
        "return {name: tokens.map(Tensor.detach) for name, tokens in parts.items()}",
        "return dict(parts)",
        HIGHER,
    ),
    _m(
        "the subset contains what is held out",
        "objectives/confu.py",
        "others = torch.arange(len(rows.names), device=rows.z.device) != k",
        "others = torch.arange(len(rows.names), device=rows.z.device) >= 0",
        HIGHER,
    ),
    _m(
        "a subset sees the whole row",
        "model.py",
        "done = [keep(parts) for parts in encoded.stages[:first]]",
        "done = list(encoded.stages[:first])",
        HIGHER,
    ),
    # -- packing -------------------------------------------------------------------------------------------------------
    _m(
        "bucket mask ignored",
        "nn/attention.py",
        "mask = None if bucket.valid is None else bucket.valid[:, None, None, :]",
        "mask = None",
        ATTENTION,
    ),
    _m(
        "rows unpacked in the order of length",
        "nn/attention.py",
        "at = order[row] * valid.shape[1] + column",
        "at = row * valid.shape[1] + column",
        ATTENTION,
    ),
    _m(
        "one head only is attended",
        "nn/attention.py",
        "transpose(1, 2).flatten(2)",
        "flatten(2).view(bucket.rows, bucket.length, -1)",
        ATTENTION,
    ),
    _m(
        "meter leaves attention out",
        "nn/blocks.py",
        "self.spent += layers * (linear * tokens + spent)",
        "self.spent += layers * linear * tokens",
        ATTENTION,
    ),
    # -- streams -------------------------------------------------------------------------------------------------------
    _m(
        "cross bucket mask ignored",
        "nn/cross.py",
        "mask = None if bucket.keys_valid is None else bucket.keys_valid[:, None, None, :]",
        "mask = None",
        CROSS,
    ),
    _m(
        "a stream attends to itself too",
        "nn/cross.py",
        "*(p for n, p in places.items() if n != name)",
        "*(p for n, p in places.items())",
        CROSS,
    ),
    _m(
        "results of co-attention put back at other tokens",
        "nn/cross.py",
        "every[layout.queries] for name",
        "every[layout.queries.sort().values] for name",
        CROSS,
    ),
    _m(
        "partner drawn by place in the batch",
        "losses/pairing.py",
        "^ keys[None]",
        "^ torch.arange(rows)[None]",
        "tests/unit/losses/test_losses_pairing.py",
    ),
    _m(
        "a third modality is seen in matching",
        "objectives/streams.py",
        "here = asked.counted & (asked.sides == at).any(1)",
        "here = asked.counted",
        STREAMS,
    ),
    _m(
        "rows are asked that nobody could be mistaken for",
        "objectives/streams.py",
        "counted = some & exists[changed, torch.arange(len(batch), device=present.device)]",
        "counted = some",
        STREAMS,
    ),
    # -- training ------------------------------------------------------------------------------------------------------
    _m(
        "resume forgets the average",
        "train/trainer.py",
        'self.average.values = {k: v.to(self.device) for k, v in found.tensors["average"].items()}',
        "pass",
        TRAINER,
    ),
    _m(
        "resume begins the epoch again",
        "train/trainer.py",
        'self.step, self.state = int(found.state["step"]), dict(found.state["stream"])',
        'self.step = int(found.state["step"])',
        TRAINER,
    ),
    _m(
        "resume forgets the optimiser",
        "train/trainer.py",
        'restore_optimizer(self.optimizer, found.tensors["optimizer"])',
        "pass",
        TRAINER,
    ),
    _m(
        "dropout draws from what came before",
        "train/trainer.py",
        'torch.manual_seed(seed_of(config.seed, self.step, "dropout", 0 if self.group is None else self.group.rank))',
        "pass",
        TRAINER,
    ),
    _m("micro-batches are summed", "train/trainer.py", "(total / len(micro)).backward()", "total.backward()", TRAINER),
    _m("a step of NaN is taken", "train/trainer.py", "if bool(norm.isfinite()):", "if True:", TRAINER),
    _m(
        "checksums are not compared",
        "train/checkpoint.py",
        "if found != wanted:",
        'if len(data) != wanted["bytes"]:',
        CHECKPOINT,
    ),
    _m(
        "written in place",
        "train/checkpoint.py",
        'aside = target.with_name(f".{target.name}.{os.getpid()}.part")',
        "aside = target",
        CHECKPOINT,
    ),
    _m(
        "candidates gathered without gradient",
        "train/distributed.py",
        "return total[begin : begin + ctx.rows]",
        "return torch.zeros_like(total[begin : begin + ctx.rows])",
        RANKS,
    ),
    _m(
        "ranks count alike",
        "train/distributed.py",
        "return counts / everywhere.clamp(min=1), everywhere",
        "return torch.full_like(counts, 1 / dist.get_world_size()), everywhere",
        RANKS,
    ),
    _m(
        "contrast across ranks takes the wrong positive",
        "objectives/scale.py",
        "weights=weights,\n            apply=self.config.harmonise.apply,\n            ignore=ignore,",
        "weights=weights,\n            apply=self.config.harmonise.apply,\n            ignore=None if ignore is None else ignore & False,",
        RANKS,
        SCALE,
    ),
    # -- InterBERT -------------------------------------------------------------------------------------------------------
    _m(
        "a donor lacks what the row has",
        "objectives/interbert.py",
        "eligible = ~lacks & eligible_partners(",
        "eligible = eligible_partners(",
        INTERBERT,
    ),
    _m(
        "equal content called a mismatch",
        "losses/pairing.py",
        "& (digests[own, None] != digests[None])",
        "",
        INTERBERT,
    ),
    _m(
        "a lone exchanged cell trains masked tokens",
        "objectives/interbert.py",
        "intact | (part & several)",
        "intact | part",
        INTERBERT,
    ),
    _m(
        "pairs with an exchanged cell called matched",
        "objectives/interbert.py",
        "swap.rows[i] | swap.rows[j]",
        "swap.rows[i] & swap.rows[j]",
        INTERBERT,
    ),
    _m(
        "item vectors of mixed rows",
        "objectives/interbert.py",
        "item.present & self._intact(visible, swap)",
        "item.present",
        INTERBERT,
    ),
    _m(
        "marks of begin and end hidden",
        "modality.py",
        "return cells.valid if allowed is None else cells.valid & allowed",
        "return cells.valid",
        INTERBERT,
    ),
    _m(
        "near duplicates as hard negatives",
        "losses/matching.py",
        "(near < band[1])",
        "(near <= 9)",
        INTERBERT,
    ),
    _m(
        "hiding is passed on from box to box",
        "presence.py",
        "own = draws if each else draws.gather(1, first)",
        "own = draws.gather(1, first)",
        "tests/parity/test_interbert_golden.py",
    ),
    _m(
        "segments one token short",
        "presence.py",
        "(ahead > 0) & (ahead <= extra[:, :, None])",
        "(ahead > 0) & (ahead < extra[:, :, None])",
        PRESENCE,
    ),
    _m(
        "pairs within one side rank it",
        "match.py",
        "(own[i] != own[j])",
        "(own[i] == own[i])",
        "tests/unit/test_match.py",
    ),
    _m(
        "layers of BERT all from the first on",
        "nn/pretrained.py",
        "first += stack.config.layers",
        "first += 0",
        "tests/unit/nn/test_nn_pretrained.py",
    ),
    # -- matching over processes, hard negatives, tokens that stay --------------------------------------------------------
    _m(
        "a process lends its own rows whoever was asked",
        "losses/_lending.py",
        "own = asked[process == world.rank] - world.rank * size",
        "own = asked[process == 0]",
        RANKS,
    ),
    _m(
        "partners drawn among one process's rows",
        "objectives/streams.py",
        "all_ = everyone(batch, model.names, self.world)",
        "all_ = everyone(batch, model.names, __import__('polymodal.objective').objective.Alone())",
        RANKS,
    ),
    _m(
        "near-copies taken for hard negatives",
        "catalogue/negatives.py",
        "inside = (near >= band[0] * 1e5) & (near < band[1] * 1e5)",
        "inside = (near >= band[0] * 1e5) & (near < torch.inf)",
        NEGATIVES,
    ),
    _m(
        "a hard negative stands twice in an epoch",
        "catalogue/negatives.py",
        "taken[chosen] = True",
        "taken[at] = True",
        NEGATIVES,
    ),
    _m(
        "a negative of the row's own group is lent",
        "objectives/interbert.py",
        "known = eligible & (batch.hard[:, None] == all_.keys[None])",
        "known = batch.hard[:, None] == all_.keys[None]",
        INTERBERT,
    ),
    _m(
        "what may not be hidden is taken out all the same",
        "objectives/m3ae.py",
        "visible[name] = visible[name] | always[name]",
        "visible[name] = visible[name] & valid[name]",
        "tests/unit/objectives/test_m3ae.py",
    ),
    _m(
        "an untrained matching head is used",
        "match.py",
        "if not trained.trains_match:",
        "if False:",
        "tests/unit/test_match.py",
    ),
    _m(
        "decoder of a BERT's head left untrained",
        "nn/pretrained.py",
        'bert.weights.get(f"{_HEAD}.decoder.weight", words))',
        "layers[3].weight)",
        "tests/unit/nn/test_nn_pretrained.py",
    ),
    # -- what tasks conclude ----------------------------------------------------------------------------------------
    _m(
        "an attribute answered piece by piece",
        "modalities/_pieces.py",
        "chosen = known[:, first].tolist(), tuple(each[:, first].exp().tolist())",
        "chosen = self.likeliest(logits)[0], tuple(each[:, first].exp().tolist())",
        "tests/unit/modalities/test_modalities_table.py",
    ),
    _m(
        "values that never come again taken for a closed list",
        "modalities/_survey.py",
        "known = name not in self._more and kept.total() >= 2 * len(kept)",
        "known = name not in self._more",
        "tests/unit/modalities/test_modalities_table.py",
    ),
    _m(
        "two modalities that disagree blamed one by one",
        "tasks/outliers.py",
        "several = compared.sum(1) > 2",
        "several = compared.sum(1) > 1",
        "tests/unit/tasks/test_tasks_outliers.py",
    ),
    _m(
        "a label that the queries name, scored without a word",
        "workflow/retrieval.py",
        'Record(i, {"words": text} if text else {})',
        "Record(i, {})",
        "tests/unit/workflow/test_workflow_leaks.py",
    ),
    _m(
        "variants of a product drawn as if they were independent",
        "evaluate/intervals.py",
        "        yield weights[:, of]\n",
        "        yield _draw(np.random.default_rng(seed), n, len(weights))\n",
        "tests/unit/evaluate/test_evaluate_intervals.py",
    ),
    _m(
        "a resample of groups divided by the number of all rows",
        "evaluate/intervals.py",
        "weights.sum(1, keepdims=True) if complete",
        "float(len(values)) if complete",
        "tests/unit/evaluate/test_evaluate_intervals.py",
    ),
    _m(
        "the jackknife leaves items out, not groups",
        "tasks/clusters.py",
        "each = np.arange(len(cells)) if units is None or int(units.max()) == 0 else units",
        "each = np.arange(len(cells))",
        "tests/unit/tasks/test_tasks_clusters.py",
    ),
    _m(
        "commands that do not know the groups of the data",
        "workflow/records.py",
        "return {i: group for i, group in names if group is not None}",
        "return {i: group for i, group in names if group is None and group is not None}",
        "tests/unit/workflow/test_workflow_groups.py",
    ),
)


def _apply(mutation: Mutation, folder: Path) -> str | None:
    file = folder / "polymodal" / mutation.file
    text = file.read_text()
    count = text.count(mutation.old)
    if count != 1:
        return f"its text is {count} times in {mutation.file}"
    file.write_text(text.replace(mutation.old, mutation.new))
    return None


def _run(folder: Path, tests: tuple[str, ...]) -> int:
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        "--no-header",
        *tests,
    ]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=900, check=False).returncode


def check(mutation: Mutation) -> str:
    """ "caught", "survived", "not yet: issue 3", or what is wrong with the mutation itself."""
    if not mutation.file:
        return "not yet: issue 3"
    with tempfile.TemporaryDirectory(prefix="mutation.") as name:
        folder = Path(name)
        for part in ("polymodal", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        wrong = _apply(mutation, folder)
        if wrong is not None:
            return wrong
        status = _run(folder, mutation.tests)
    # 1: a test failed; anything else (no test found, broken import) is no catch
    return {0: "survived", 1: "caught"}.get(status, f"pytest ended with {status}")


def main() -> int:
    """Check the mutations asked for; 1 if one is not caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="part of a name")
    parser.add_argument("--list", action="store_true")
    asked = parser.parse_args()
    chosen = [m for m in MUTATIONS if asked.only is None or asked.only in m.name]
    if not chosen:
        print(f"no mutation has {asked.only!r} in its name")
        return 1
    bad = 0
    for mutation in chosen:
        where = f"{mutation.file or '(no code yet)':24}"
        if asked.list:
            print(f"{mutation.name:55} {where} {' '.join(mutation.tests)}")
            continue
        begun = time.monotonic()
        verdict = check(mutation)
        bad += verdict not in ("caught", "not yet: issue 3")
        print(f"{mutation.name:55} {where} {verdict:12} {time.monotonic() - begun:5.0f} s", flush=True)
    if not asked.list:
        print(f"{len(chosen)} mutations, {bad} not caught")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
