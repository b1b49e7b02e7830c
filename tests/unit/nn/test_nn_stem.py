"""The convolutional stem: each patch by itself, and a picture is learnt by it."""

from __future__ import annotations

import torch
from support import build_model, make_batch

from polymodal.modalities.image import ImageConfig
from polymodal.modalities.video import VideoConfig
from polymodal.nn.stem import ConvStem


def test_each_patch_is_convolved_by_itself():
    torch.manual_seed(0)
    stem = ConvStem(8, 1, 16)
    pixels = torch.randn(5, 8 * 8 * 3)
    together = stem(pixels)
    assert together.shape == (5, 16)
    for at in range(5):
        assert torch.allclose(stem(pixels[at : at + 1])[0], together[at], atol=1e-6)
    assert stem(pixels[:0]).shape == (0, 16)


def test_rows_columns_and_channels_are_read_in_that_order():
    """Moving the object by two pixels moves the first feature map by one, in the same direction."""
    stem = ConvStem(8, 1, 16)
    picture = torch.zeros(1, 8, 8, 3)
    picture[0, 2, 2, 1] = 1.0
    right = picture.roll(2, 2)
    first = stem.convolutions[0]

    def after(p):
        return first(p.reshape(1, -1).view(1, 8, 8, 3).permute(0, 3, 1, 2))

    assert torch.allclose(after(picture)[..., 1], after(right)[..., 2], atol=1e-6)


def test_a_picture_by_stem_is_the_linear_map_and_more():
    torch.manual_seed(0)
    config = ImageConfig(stem="conv", patch=32)
    image = config.build(16, config.fit([config.decoder().example(0)]))
    fields = image.preprocess(image.example(0))
    assert len(fields["patches"]) % 4 == 0
    plain = image.project(image._standard(fields))
    assert torch.allclose(image.embed(fields), plain + image.stem(image._standard(fields)))
    assert image.stem is not None
    assert ImageConfig().build(16, {}).stem is None


def test_a_tube_by_stem_sees_its_frames_side_by_side():
    torch.manual_seed(0)
    config = VideoConfig(stem="conv", size=32, patch=32, tube=2)
    video = config.build(16, config.fit([config.decoder().example(0)]))
    fields = video.preprocess(video.example(0))
    pixels = video._standard(fields)
    assert torch.allclose(video.embed(fields), video.project(pixels) + video.stem(pixels))
    tube = pixels[0].view(2, 32, 32, 3)
    seen = []
    video.stem.convolutions.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    video.stem(pixels[:1])
    assert torch.equal(seen[0][0, :3], tube[0].permute(2, 0, 1))
    assert torch.equal(seen[0][0, 3:], tube[1].permute(2, 0, 1))


def test_the_stem_is_trained_and_exported():
    model = build_model(("image", "text"))
    assert not any("stem" in name for name in model.state_dict())
    config = ImageConfig(stem="conv")
    image = config.build(16, {})
    batch = make_batch(model, [("image",)])
    image.embed(batch.cells["image"].packed()).sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in image.stem.parameters())
