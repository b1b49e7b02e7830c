"""SCALE's numbers, recomputed in float64 numpy so that they match the authors' own functions to 1e-7 (SCALE_code at
227ae08): five vectors of two rows, order text, image, table, video, audio; the second row's video and audio imputed."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from polymodal.losses.contrastive import pairwise_contrast
from polymodal.losses.harmonise import agreement, harmonise, harmonise_batch, similarity
from polymodal.losses.masking import masked_prediction

H = torch.tensor(
    [
        [[1, 2, 0, 1], [0, 1, 2, 1]],
        [[2, 1, 0, 1], [1, 0, 2, 1]],
        [[1, 1, 1, 0], [0, 2, 1, 1]],
        [[0, 1, 3, 1], [1, 1, 1, 1]],
        [[3, 0, 1, 0], [1, 1, 1, 1]],
    ],
    dtype=torch.float64,
)
ALL = torch.ones(5, 2, dtype=torch.bool)
PRESENT = torch.tensor([[1, 1], [1, 1], [1, 1], [1, 0], [1, 0]], dtype=torch.bool)
TAU = 0.07
PAPER_0 = [
    [0.2727267302, 0.1923818275, 0.1438834356, 0.0535989617, 0.0572374639],
    [0.1826828452, 0.2589771378, 0.1366295129, 0.0300013559, 0.1601200176],
    [0.1320948640, 0.1320948640, 0.2503818469, 0.1286812407, 0.1396276943],
    [0.0608345695, 0.0358592519, 0.1590868085, 0.3095435567, 0.0433588007],
    [0.0584048403, 0.1720601774, 0.1551904140, 0.0389808815, 0.2782890792],
]
CODE_1 = [
    [0.5853137631, 0.4128811699, 0.4128811699, 0.3977851668, 0.3977851668],
    [0.4449529544, 0.6307797671, 0.1912936341, 0.4286843240, 0.4286843240],
    [0.4449529544, 0.1912936341, 0.6307797671, 0.4286843240, 0.4286843240],
    [0.3693528000, 0.3693528000, 0.3693528000, 0.5434774731, 0.5434774731],
    [0.3693528000, 0.3693528000, 0.3693528000, 0.5434774731, 0.5434774731],
]
PRESENT_1 = [
    [0.3713381257, 0.2619424476, 0.2619424476, 0, 0],
    [0.2875653795, 0.4076620266, 0.1236297590, 0, 0],
    [0.2875653795, 0.1236297590, 0.4076620266, 0, 0],
    [0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0],
]
# form, apply -> mean over the ten pairs, then pairs 01 02 03 04 12 13 14 23 24 34
CONTRAST = {
    ("none", "logit"): (
        2.1066184804,
        "0.0092964536 0.9984562586 4.6499264458 2.6051621133 1.8280399546 "
        "4.7735563943 0.5299027400 1.4736338923 0.9257325775 3.2724779742",
    ),
    ("code", "logit"): (
        0.9344904782,
        "0.1401255180 0.9216005663 1.4508534828 0.9665340462 1.0687090175 "
        "1.2225181044 0.6970859327 1.1557304674 0.8184892809 0.9032583659",
    ),
    ("paper", "logit"): (
        0.9751778585,
        "0.5388783873 0.9958658133 1.1911241779 0.9883981217 1.0749737243 "
        "1.1222163380 0.9017882642 1.1079549493 0.9086490722 0.9219297367",
    ),
    ("code", "loss"): (
        0.4220045650,
        "0.0043242549 0.3924199994 0.8839830918 0.4461415219 0.3995960079 "
        "0.5458602813 0.2242003983 0.5506396274 0.3690252315 0.4038552353",
    ),
    ("paper", "loss"): (
        0.1588090648,
        "0.0016466714 0.1478542653 0.3354607466 0.1673695889 0.1534857581 "
        "0.2090247745 0.0858600762 0.2047668543 0.1376590720 0.1449628154",
    ),
}


def test_similarity():
    s = similarity(H, ALL)[0]
    wanted = {
        (0, 1): 0.8333333333,
        (0, 2): 0.7071067812,
        (0, 3): 0.3692744729,
        (0, 4): 0.3872983346,
        (1, 2): 0.7071067812,
    }
    wanted |= {
        (1, 3): 0.2461829820,
        (1, 4): 0.7745966692,
        (2, 3): 0.6963106238,
        (2, 4): 0.7302967433,
        (3, 4): 0.2860387768,
    }
    for (i, j), value in wanted.items():
        assert float(s[i, j]) == pytest.approx(value, abs=1e-6)
        assert float(s[j, i]) == pytest.approx(value, abs=1e-6)
    assert torch.allclose(s.diagonal(), torch.ones(5))


def test_paper_form():
    w = harmonise(similarity(H, ALL), None, "paper")
    assert torch.allclose(w[0], torch.tensor(PAPER_0), atol=1e-6)


def test_code_form():
    w = harmonise(similarity(H, ALL), None, "code")
    assert torch.allclose(w[1], torch.tensor(CODE_1), atol=1e-6)
    assert torch.allclose(
        w[0].diagonal(), torch.tensor([0.7335126596, 0.6785919592, 0.6849016606, 0.8652257485, 0.7544391256]), atol=1e-6
    )


def test_the_unused_batch_form():
    _, diagonal = harmonise_batch(similarity(H, ALL))
    wanted = torch.tensor([0.1969751494, 0.19789375, 0.1914760036, 0.2165909284, 0.1970641686])
    assert torch.allclose(diagonal, wanted, atol=1e-6)


def test_presence_aware_form():
    w = harmonise(similarity(H, PRESENT), PRESENT.T, "paper")
    assert torch.allclose(w[0], torch.tensor(PAPER_0), atol=1e-6)
    assert torch.allclose(w[1], torch.tensor(PRESENT_1), atol=1e-6)


@pytest.mark.parametrize(
    ("c", "paper", "code"),
    [
        (0.5, (0.292, 0.088), (0.855, 0.259)),
        (0.75, (0.243, 0.142), (0.650, 0.380)),
        (-0.3, (0.478, -0.039), (0.987, -0.081)),
    ],
)
def test_closed_form_of_equal_cosines(c, paper, code):
    s = (torch.full((5, 5), c) + (1 - c) * torch.eye(5))[None]
    for form, (diagonal, off) in (("paper", paper), ("code", code)):
        w = harmonise(s, None, form)[0]
        assert float(w[0, 0]) == pytest.approx(diagonal, abs=6e-4)
        assert float(w[0, 1]) == pytest.approx(off, abs=6e-4)


@pytest.mark.parametrize(("form", "apply"), CONTRAST)
def test_contrast(form, apply):
    weights = None if form == "none" else harmonise(similarity(H, ALL), None, form)
    terms = pairwise_contrast(F.normalize(H.float(), dim=-1), ALL, 1 / TAU, weights=weights, apply=apply)
    mean, pairs = CONTRAST[form, apply]
    values = [float(term.value) for term in terms.values()]
    assert list(terms) == [(i, j) for i in range(5) for j in range(i + 1, 5)]
    assert values == pytest.approx([float(v) for v in pairs.split()], abs=1e-5)
    assert sum(values) / 10 == pytest.approx(mean, abs=1e-5)
    assert all(int(term.count) == 4 for term in terms.values())


def test_one_row_left_has_no_negatives():
    present = torch.tensor([[1, 0], [1, 0]], dtype=torch.bool)
    (term,) = pairwise_contrast(F.normalize(H[:2].float(), dim=-1), present, 1 / TAU).values()
    assert float(term.value) == pytest.approx(0.0, abs=1e-6)
    assert int(term.count) == 2


def _cross_entropy(prediction, target):
    return F.cross_entropy(prediction, target, reduction="none")


def _squared(prediction, target):
    return ((prediction - target) ** 2).mean(-1)


def test_masked_losses_plain_and_as_released():
    code = harmonise(similarity(H, ALL), None, "code").diagonal(dim1=1, dim2=2)
    logits, labels = torch.tensor([[2.0, 0, -1], [0, 1, 0], [3, 0, 0]]), torch.tensor([0, 2, 0])
    text = code[[0, 1, 1], 0]
    assert float(masked_prediction(logits, labels, _cross_entropy).value) == pytest.approx(0.6054045633, abs=1e-6)
    scaled = masked_prediction(logits, labels, _cross_entropy, text, "logit")
    assert float(scaled.value) == pytest.approx(0.6414225443, abs=1e-6)
    prediction = torch.tensor([[1.0, 2], [2, 2], [1, -1]])
    target = torch.tensor([[1.0, 1], [0, 0], [1, -2]])
    image = code[[0, 1, 1], 1]
    assert float(masked_prediction(prediction, target, _squared).value) == pytest.approx(1.6666666667, abs=1e-6)
    assert float(masked_prediction(prediction, target, _squared, image, "logit").value) == pytest.approx(
        0.9041726706, abs=1e-6
    )


def test_free_similarity_starts_without_gradient_to_the_encoders():
    s = torch.zeros(1, 5, 5, requires_grad=True)
    w = harmonise(s, None, "free")
    assert float(w.detach().abs().max()) == 0
    (gradient,) = torch.autograd.grad(w[0, 0, 1], s)
    assert float(gradient[0, 0, 1]) == pytest.approx(0.2, abs=1e-6)


def test_agreement_rewards_the_modality_that_agrees():
    w = harmonise(similarity(H, ALL), ALL.T, "code")
    d = agreement(w, ALL.T)
    assert int(d[0].argmin()) == 3, "video is the least aligned of sample 0 and the literal diagonal gives it the most"
    assert int(w[0].diagonal().argmax()) == 3
    assert float(d[0].mean()) == pytest.approx(1.0, abs=1e-6)
    alone = agreement(w[:1], torch.tensor([[True, False, False, False, False]]))
    assert alone.tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0]]


def test_all_of_the_golden_file():
    path = Path(__file__).parents[2].parent / "shared" / "specs" / "golden" / "scale.json"
    if not path.exists():
        pytest.skip("golden file is not beside this checkout")
    golden = json.loads(path.read_text())
    s = similarity(H, ALL)
    assert torch.allclose(s, torch.tensor(golden["S"]).float(), atol=1e-6)
    assert torch.allclose(harmonise(s, None, "paper"), torch.tensor(golden["paper_rowwise"]), atol=1e-6)
    assert torch.allclose(harmonise(s, None, "code"), torch.tensor(golden["code_per_sample"]), atol=1e-6)
    assert torch.allclose(harmonise(s, None, "matrix"), torch.tensor(golden["paper_fullsoftmax"]), atol=1e-6)
    batch, diagonal = harmonise_batch(s)
    assert torch.allclose(batch, torch.tensor(golden["code_batch"]), atol=1e-6)
    assert torch.allclose(diagonal, torch.tensor(golden["code_batch_diag"]), atol=1e-6)
    aware = harmonise(similarity(H, PRESENT), PRESENT.T, "paper")
    assert torch.allclose(aware, torch.tensor(golden["presence_masked"]), atol=1e-6)
    names = {"none": "unweighted", "code": "code", "paper": "paper"}
    for (form, apply), _ in CONTRAST.items():
        key = (
            "unweighted"
            if form == "none"
            else f"loss x {form} weights"
            if apply == "loss"
            else f"{names[form]}: logit x {form} weights"
        )
        weights = None if form == "none" else harmonise(s, None, form)
        terms = pairwise_contrast(F.normalize(H.float(), dim=-1), ALL, 1 / TAU, weights=weights, apply=apply)
        assert [float(t.value) for t in terms.values()] == pytest.approx(golden["cl"][key][1:], abs=1e-5)
