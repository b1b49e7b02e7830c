"""M3AE's numbers, in float64 numpy from the paper's formulas and equal to the authors' JAX functions to 6 decimals
(m3ae_public at a5eb14f): specs/golden/interbert_m3ae.py made them. The important ones also stand here."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from polymodal import presence
from polymodal.draws import uniform
from polymodal.evaluate.outliers import Mahalanobis, auroc
from polymodal.losses.masking import masked_prediction
from polymodal.losses.reconstruction import reconstruction
from polymodal.modalities.image import Image, ImageConfig
from polymodal.modalities.text import Text, TextConfig
from polymodal.model import Model, ModelConfig
from polymodal.nn.blocks import StackConfig
from polymodal.nn.positions import sincos
from polymodal.objectives import m3ae
from polymodal.objectives.m3ae import M3AEConfig
from polymodal.recipe import TrainConfig
from polymodal.recipes.m3ae import reference
from polymodal.tensors import Batch, Cells
from polymodal.train.optim import learning_rate

GOLDEN = Path(__file__).parents[3] / "shared" / "specs" / "golden" / "interbert_m3ae.json"


@pytest.fixture(scope="module")
def golden():
    if not GOLDEN.exists():
        pytest.skip("the golden values are not here")
    return json.loads(GOLDEN.read_text())


# -- the tiny model: 8 wide, 2 + 1 layers, 4 patches of 12 numbers, 6 tokens of a vocabulary of 11 ------------------

EPS = 1e-5
STACK = {"activation": "gelu_tanh", "eps": 1e-6}


def stack_names(prefix, width, layers):
    out = []
    for at in range(layers):
        b = f"{prefix}.{at}."
        out += [(b + "norm1.weight", (width,)), (b + "norm1.bias", (width,))]
        for name, i, o in (("attention.qkv", width, 3 * width), ("attention.out", width, width)):
            out += [(f"{b}{name}.weight", (i, o)), (f"{b}{name}.bias", (o,))]
        out += [(b + "norm2.weight", (width,)), (b + "norm2.bias", (width,))]
        for name, i, o in (("mlp.0", width, 4 * width), ("mlp.2", 4 * width, width)):
            out += [(f"{b}{name}.weight", (i, o)), (f"{b}{name}.bias", (o,))]
    root = prefix.removesuffix(".blocks")
    return [*out, (f"{root}.norm.weight", (width,)), (f"{root}.norm.bias", (width,))]


# our names in the order of the golden file's parameters; shapes as there (inputs first)
NAMES = [
    ("modalities.image.project.weight", (12, 8)),
    ("modalities.image.project.bias", (8,)),
    ("modalities.text.content.weight", (11, 8)),
    ("stages.0.types.image", (8,)),
    ("stages.0.types.text", (8,)),
    ("decoder.types.image", (8,)),
    ("decoder.types.text", (8,)),
    ("stages.0.item", (8,)),
    ("decoder.masks.image", (8,)),
    ("decoder.masks.text", (8,)),
    ("decoder.project.weight", (8, 8)),
    ("decoder.project.bias", (8,)),
    ("heads.image.weight", (8, 12)),
    ("heads.image.bias", (12,)),
    ("heads.text.weight", (8, 11)),
    ("heads.text.bias", (11,)),
    *stack_names("stages.0.stack.blocks", 8, 2),
    *stack_names("decoder.stack.blocks", 8, 1),
]


def wave(shape, number, gain):
    k = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    values = 0.3 * torch.sin(0.7 * number + 0.37 * k + 0.5)
    return (1 + values if gain else values).reshape(shape)


@pytest.fixture(scope="module")
def tiny():
    image = ImageConfig(size=8, patch=2, max_pictures=1, places="sincos")
    text = TextConfig(max_tokens=6, places="sincos", words_as_unit=False)
    shape = ModelConfig(width=8, embedding=8, stages=("trunk",), trunk=StackConfig(layers=2, heads=2, **STACK))
    model = Model(
        {
            "image": Image(image, 8, {"mean": [0.0] * 3, "spread": [1.0] * 3}),
            "text": Text(text, 8, SimpleNamespace(marks={}, size=11)),
        },
        shape,
    )
    config = M3AEConfig(
        ratio=0.5,
        weights={"text": 0.5},
        slack=0.0,
        shared_mask=True,
        slots={"image": 4, "text": 6},
        divide="batch",
        decoder=StackConfig(layers=1, heads=4, **STACK),
        decoder_width=8,
        places="sincos",
        heads="linear",
        vectors=False,
        bottleneck=0.0,
    )
    objective = config.build(model)
    params = {**dict(model.named_parameters()), **dict(objective.named_parameters())}
    with torch.no_grad():
        for number, (name, shape) in enumerate(NAMES):
            value = wave(shape, number, "norm" in name and name.endswith("weight"))
            linear = len(shape) == 2 and "content" not in name
            params[name].copy_(value.T if linear else value)
        # what is ours and not in the original: the first picture's vector, and where words begin
        model.modality("image").pictures.weight.zero_()
        model.modality("text").start.weight.zero_()
    given = {name for name, _ in NAMES} | {"modalities.image.pictures.weight", "modalities.text.start.weight"}
    assert not [name for name in params if name not in given and not name.startswith("projections.")]
    return model, objective


NOISE = {4: [0.6, 0.1, 0.9, 0.3], 6: [0.2, 0.8, 0.5, 0.9, 0.1, 0.4]}


@pytest.fixture(autouse=True)
def noise(monkeypatch, request):
    if "tiny" in request.fixturenames:
        monkeypatch.setattr(m3ae, "uniform", lambda _, keys, n: torch.tensor(NOISE[n]).expand(len(keys), n))


def image_cells():
    patches = torch.sin(0.3 * torch.arange(96, dtype=torch.float64)).reshape(2, 4, 12).float()
    row, column = torch.tensor([0, 0, 1, 1]).expand(2, 4), torch.tensor([0, 1, 0, 1]).expand(2, 4)
    fields = {"patches": patches, "row": row, "column": column, "picture": torch.zeros(2, 4, dtype=torch.long)}
    return Cells(fields, torch.ones(2, 4, dtype=torch.bool))


def text_cells(empty=False):
    ids = torch.tensor([[5, 3, 7, 2, 0, 0], [9, 1, 4, 10, 6, 8]])
    valid = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6], dtype=torch.bool) & (not empty)
    zero = torch.zeros_like(ids)
    return Cells({"id": ids, "position": torch.arange(6).expand(2, 6), "start": zero, "unit": zero}, valid)


def losses(tiny, cells):
    model, objective = tiny
    with torch.no_grad():
        found = objective(model, [Batch(("a", "b"), cells)], 0)
    return {name: float(term.value) for name, term in found.terms.items()}, float(found.total)


def test_tiny_paired(tiny):
    terms, total = losses(tiny, {"image": image_cells(), "text": text_cells()})
    assert terms["masked/image"] == pytest.approx(2.238415, abs=EPS)
    assert terms["masked/text"] == pytest.approx(2.709200, abs=EPS)
    assert total == pytest.approx(3.593015, abs=EPS)


def test_tiny_outputs(tiny):
    """The decoder's answers themselves, and the summary token."""
    model, objective = tiny
    batch = Batch(("a", "b"), {"image": image_cells(), "text": text_cells()})
    with torch.no_grad():
        seen = objective.look(model, batch, objective.choose(model, batch, 0))
        decoded = objective.decoder(model, batch, seen)
        image, text = (objective.heads[name](decoded[name].x) for name in ("image", "text"))
    wanted = [-1.208596, -1.50456, -1.596889, -1.473087]
    assert image[0, 0, :4].tolist() == pytest.approx(wanted, abs=EPS)
    assert text[1, 2, :4].tolist() == pytest.approx([-1.205205, -1.174481, -0.984796, -0.661824], abs=EPS)
    cls = seen.encoded.last["item"].x[:, 0]
    wanted = [-1.492436, -1.248479, -0.89757, -0.491063, -0.045303, 0.440357, 0.951575, 1.434078]
    assert cls[0].tolist() == pytest.approx(wanted, abs=EPS)
    assert float(cls.square().sum()) == pytest.approx(15.874881, abs=1e-4)
    hidden = ~seen.visible["image"][0]
    predicted = objective.predict(model, batch, seen.visible)["image"]
    assert torch.allclose(predicted[: int(hidden.sum())], image[0][hidden], atol=1e-6)


def test_tiny_image_only(tiny):
    terms, total = losses(tiny, {"image": image_cells()})
    assert terms == {"masked/image": pytest.approx(2.238116, abs=EPS)}
    assert total == pytest.approx(2.238116, abs=EPS)


def test_tiny_text_only(tiny):
    terms, _ = losses(tiny, {"text": text_cells()})
    assert terms == {"masked/text": pytest.approx(2.707797, abs=EPS)}


def test_a_text_of_padding_is_no_text(tiny):
    with_padding, _ = losses(tiny, {"image": image_cells(), "text": text_cells(empty=True)})
    without, _ = losses(tiny, {"image": image_cells()})
    assert with_padding["masked/image"] == without["masked/image"]
    assert with_padding["masked/text"] == 0


def test_tiny_values_are_those_of_the_file(golden, tiny):
    terms, total = losses(tiny, {"image": image_cells(), "text": text_cells()})
    paired = golden["m3ae.tiny.paired"]
    assert terms["masked/image"] == pytest.approx(paired["img_loss"], abs=EPS)
    assert terms["masked/text"] == pytest.approx(paired["txt_loss,acc"][0], abs=EPS)
    assert total == pytest.approx(paired["total(w_text=0.5)"], abs=EPS)


# -- parts -------------------------------------------------------------------------------------------------------------


def line(count):
    return torch.arange(count)[:, None]


def grid(side):
    return torch.cartesian_prod(torch.arange(side), torch.arange(side))


def test_sincos_one_axis():
    wanted = [0.909297, 0.198669, 0.019999, 0.002, -0.416147, 0.980067, 0.9998, 0.999998]
    assert sincos(line(4), 8)[2].tolist() == pytest.approx(wanted, abs=EPS)
    code = sincos(line(64), 768)
    assert code[1, :3].tolist() == pytest.approx([0.841471, 0.828431, 0.815251], abs=EPS)
    assert code[1, 384:387].tolist() == pytest.approx([0.540302, 0.560091, 0.579108], abs=EPS)
    assert float(code[63, 383]) == pytest.approx(0.006453, abs=EPS)
    assert float(code.double().sum()) == pytest.approx(18778.414709, abs=1e-2)
    assert float(code.double().square().sum()) == pytest.approx(24576, abs=1e-2)


def test_sincos_two_axes_have_the_column_first():
    wanted = [0.841471, 0.01, 0.540302, 0.99995]
    code = sincos(grid(2), 8)
    assert code[1].tolist() == pytest.approx([*wanted, 0, 0, 1, 1], abs=EPS)
    assert code[2].tolist() == pytest.approx([0, 0, 1, 1, *wanted], abs=EPS)
    code = sincos(grid(16), 768)
    assert [float(code[i, j]) for i, j in ((3, 0), (3, 384), (48, 0), (48, 384))] == pytest.approx(
        [0.14112, 0, 0, 0.14112], abs=EPS
    )
    assert float(code.double().sum()) == pytest.approx(89660.316408, abs=1e-2)


def test_tables_of_the_file(golden):
    assert np.allclose(sincos(line(4), 8), golden["m3ae.sincos1d_D8_pos0..3"], atol=EPS)
    assert np.allclose(sincos(grid(2), 8), golden["m3ae.sincos2d_D8_L4"], atol=EPS)
    code = sincos(grid(16), 768)
    for key, value in golden["m3ae.sincos2d_D768_L256"].items():
        if key.startswith("["):
            i, j = json.loads(key)
            assert float(code[i, j]) == pytest.approx(value, abs=EPS)


@pytest.mark.parametrize(
    ("length", "ratio", "release", "ours"),
    [
        *[(256, 0.75, 64, 64), (196, 0.75, 49, 49), (64, 0.75, 16, 16), (64, 0.9, 6, 6), (64, 0.5, 32, 32)],
        *[(64, 0.15, 54, 54), (256, 0.9, 25, 25), (20, 0.9, 1, 2), (10, 0.9, 0, 1), (50, 0.8, 9, 10)],
    ],
)
def test_lengths(length, ratio, release, ours):
    """Rounding down without slack loses a token wherever 1 - r is a hair below its decimal."""
    sets = torch.tensor([length])
    objective = SimpleNamespace(config=M3AEConfig(ratio=ratio, slack=0.0))
    assert int(m3ae.M3AE._kept(objective, "text", sets)) == release == int(length * (1.0 - ratio))
    objective.config = M3AEConfig(ratio=ratio)
    assert int(m3ae.M3AE._kept(objective, "text", sets)) == ours


@pytest.mark.parametrize(("keep", "hidden"), [(2, [1, 0, 1, 1, 1, 0, 1, 1]), (4, [0, 0, 1, 0, 1, 0, 1, 1])])
def test_masks_from_noise(keep, hidden):
    noise = torch.tensor([[0.42, 0.11, 0.93, 0.27, 0.65, 0.08, 0.77, 0.51]])
    visible = presence.show(torch.ones(1, 8, dtype=torch.bool), torch.tensor([keep]), noise)
    assert (~visible).int()[0].tolist() == hidden


def test_patches_are_in_the_order_of_the_release():
    image = Image(ImageConfig(size=8, patch=2, margin=0, max_pictures=1), 8, {})
    picture = torch.arange(192).reshape(1, 8, 8, 3).to(torch.uint8).numpy()
    patches = image.preprocess(picture)["patches"]
    assert patches[0].tolist() == [0, 1, 2, 3, 4, 5, 24, 25, 26, 27, 28, 29]
    assert patches[1].tolist() == [6, 7, 8, 9, 10, 11, 30, 31, 32, 33, 34, 35]


def squared(prediction, target):
    return (prediction - target).square().mean(-1)


def test_patch_loss_is_a_mean_over_rows_of_means():
    rows, place = torch.arange(2)[:, None, None], torch.arange(4)[None, :, None]
    target = 0.1 * torch.arange(24.0).reshape(2, 4, 3)
    output = target + 0.1 * (rows + 1) * (place + 1)
    valid = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 1]], dtype=torch.bool)
    at = valid.nonzero()[:, 0]
    term = reconstruction(output[valid], target[valid], squared, at, 2)
    assert float(term.value) == pytest.approx(0.218333, abs=1e-6)
    assert int(term.count) == 2
    pooled = masked_prediction(output[valid], target[valid], squared)
    assert float(pooled.value) == pytest.approx(0.252, abs=1e-6)
    every = reconstruction(output.flatten(0, 1), target.flatten(0, 1), squared, torch.arange(8) // 4, 2)
    assert float(every.value) == pytest.approx(0.1875, abs=1e-6)


def test_pixels_normalised_by_their_patch():
    config = ImageConfig(size=8, patch=2, norm_target=True, norm_floor=1e-6)
    target = Image(config, 8, {}).target({"patches": torch.tensor([[1, 2, 3, 4]], dtype=torch.uint8)})
    assert target[0].tolist() == pytest.approx([-1.161895, -0.387298, 0.387298, 1.161895], abs=EPS)


LOGITS = torch.tensor([[[0, 1, 2, 3.0], [1, 0, 0, 0], [2, 2, 2, 2]], [[0, 0, 0, 5.0], [3, 1, 0, 0], [0, 0, 1, 0]]])
TOKENS = torch.tensor([[3, 1, 0], [3, 0, 1]])


def cross_entropy(prediction, target):
    return torch.nn.functional.cross_entropy(prediction, target, reduction="none")


@pytest.mark.parametrize(
    ("valid", "rows", "batch", "count"),
    [
        ([[1, 1, 0], [0, 1, 1]], 1.034631, 1.034631, 2),
        # the release counts a row without a target: a text in every second row makes its loss half as large
        ([[1, 1, 0], [0, 0, 0]], 1.091929, 0.545965, 1),
    ],
)
def test_text_loss_and_the_share_of_rows_with_text(valid, rows, batch, count):
    mask = torch.tensor(valid, dtype=torch.bool)
    at = mask.nonzero()[:, 0]
    ours = reconstruction(LOGITS[mask], TOKENS[mask], cross_entropy, at, 2)
    release = reconstruction(LOGITS[mask], TOKENS[mask], cross_entropy, at, 2, "batch")
    assert (float(ours.value), int(ours.count)) == (pytest.approx(rows, abs=1e-6), count)
    assert (float(release.value), int(release.count)) == (pytest.approx(batch, abs=1e-6), 2)


def test_schedule():
    """Ours takes the rate of the end of a step where the release takes that of its beginning, while it warms up."""
    config = TrainConfig(learning_rate=2.4e-3, warmup=0.05, final=0.0)
    wanted = {250: 1.2, 500: 2.4, 1000: 2.383634, 5250: 1.2, 9000: 0.065019, 10000: 0.0}
    for step, rate in wanted.items():
        at = step - 1 if step < 500 else step
        assert learning_rate(config, at, 10_000) * 1e3 == pytest.approx(rate, abs=1e-6)
    assert reference({"image": "image"}).train.warmup == 0.05
    assert reference({"image": "image"}).train.learning_rate == pytest.approx(1.5e-4 * 4096 / 256)


@pytest.mark.parametrize(("real", "ratio", "chance"), [(4, 0.75, 0.306244), (8, 0.75, 0.085254), (8, 0.9, 0.43306)])
def test_short_texts_with_nothing_visible(real, ratio, chance):
    """Padding in the draw (`slots`) empties short texts as often as the release does; real tokens alone never."""
    text = Text(TextConfig(max_tokens=64), 8, SimpleNamespace(marks={}, size=11))
    image = Image(ImageConfig(size=8, patch=2, max_pictures=1), 8, {})
    model = Model({"image": image, "text": text}, ModelConfig(width=8, embedding=8, stages=("trunk",)))
    rows = 4000
    valid = torch.arange(64).expand(rows, 64) < real
    patches = {"patches": torch.zeros(rows, 2, 12)}
    cells = {"text": Cells({"id": torch.zeros(rows, 64)}, valid), "image": Cells(patches, torch.ones(rows, 2).bool())}
    batch = Batch(tuple(map(str, range(rows))), cells)
    ratios = {"image": 0.0, "text": ratio}
    shown = M3AEConfig(ratios=ratios, slots={"text": 64}, slack=0.0).build(model).choose(model, batch, 0)["text"]
    error = 4 * (chance * (1 - chance) / rows) ** 0.5
    assert float((~shown.any(1)).float().mean()) == pytest.approx(chance, abs=error)
    ours = M3AEConfig(ratios=ratios).build(model).choose(model, batch, 0)["text"]
    assert (ours.sum(1) == int(real * (1 - ratio) + 1e-6)).all()


# -- sizes -------------------------------------------------------------------------------------------------------------

COUNTS = {
    "small": (21_294_336, 74_782_266, 47_402_624),
    "base": (85_056_000, 150_757_434, 111_656_960),
    "large": (302_311_424, 376_155_194, 329_240_832),
    "huge": (629_680_640, 711_666_746, 656_938_496),
}


def numbers(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(size, kinds):
    made = reference(kinds, size)
    width = made.model.width
    with torch.device("meta"):
        built = {}
        for name, config in made.modalities.items():
            pieces = SimpleNamespace(marks={}, size=30522)
            built[name] = Text(config, width, pieces) if name == "text" else config.build(width, {})
        model = Model(built, made.model)
        return model, made.objective.build(model)


@pytest.mark.parametrize("size", COUNTS)
def test_parameters_of_the_paper(size):
    encoder, both, alone = COUNTS[size]
    model, objective = on_meta(size, {"image": "image", "text": "text"})
    assert numbers(model.stages[0].stack) == encoder
    assert numbers(objective.decoder.stack) == 25_220_096
    # ours besides: the projections, whether a word begins, and the number of the picture
    extra = numbers(model.projections) + numbers(model.modality("text").start) + model.config.width
    assert numbers(model) + numbers(objective) - extra == both
    model, objective = on_meta(size, {"image": "image"})
    assert numbers(model) + numbers(objective) - numbers(model.projections) - model.config.width == alone


# -- strangers ---------------------------------------------------------------------------------------------------------


def test_mahalanobis_toy():
    vectors = np.array([[0, 0], [2, 0], [0, 2], [2, 2], [6, 6], [8, 6], [6, 8], [8, 8.0]])
    fitted = Mahalanobis.fit(vectors, np.repeat([0, 1], 4))
    assert np.allclose(fitted.means, [[1, 1], [7, 7]])
    assert np.allclose(fitted.inverse, np.eye(2))
    assert fitted.score([[4.0, 3.0]]) == pytest.approx([13.0])


def test_auroc_toy():
    assert auroc([1, 2, 3], [2, 4, 5]) == pytest.approx(0.833333, abs=1e-6)


def test_draws_are_what_is_patched():
    """The fixture that puts the golden noise in must replace the function that draws."""
    assert m3ae.uniform is uniform
