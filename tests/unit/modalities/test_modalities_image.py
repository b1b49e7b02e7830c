"""Pictures: what is decoded and what is refused, augmentation, patches, the model side."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageFile

from polymodal.media import MediaLimits
from polymodal.modalities.image import Image, ImageConfig
from polymodal.types import BadInput, MediaError

CONFIG = ImageConfig()
IMAGE = CONFIG.decoder()
RED, BLUE, WHITE = (220, 30, 30), (30, 30, 220), (255, 255, 255)


def flat(colour=RED, height: int = 90, width: int = 120) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def halves(left=RED, right=BLUE, height: int = 96, width: int = 96) -> np.ndarray:
    pixels = flat(left, height, width)
    pixels[:, width // 2 :] = right
    return pixels


def noise(height: int = 300, width: int = 400) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    return np.kron(coarse, np.ones((10, 10, 1), np.uint8))


def encode(pixels: np.ndarray | Pillow.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    (Pillow.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels).save(file, kind, **options)
    return file.getvalue()


def refusal(source: object, image: Image = IMAGE) -> MediaError:
    with pytest.raises(MediaError) as caught:
        image.decode(source)
    return caught.value


def centre(value: np.ndarray) -> np.ndarray:
    return value[0, value.shape[1] // 2, value.shape[2] // 2].astype(int)


# -- decode ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_formats_decode_to_one_canvas(kind: str, tmp_path: Path) -> None:
    data = encode(flat(), kind)
    path = tmp_path / "picture.jpg"  # the name says nothing: content decides
    path.write_bytes(data)
    value = IMAGE.decode(data)
    assert value.shape == (1, CONFIG.canvas, CONFIG.canvas, 3)
    assert value.dtype == np.uint8
    assert np.abs(centre(value) - RED).max() < 8
    np.testing.assert_array_equal(IMAGE.decode(path), value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_truncated_pictures_are_refused(kind: str, kept: float) -> None:
    data = encode(noise(), kind)
    assert refusal(data[: int(len(data) * kept)]).reason == "truncated"


def test_truncated_progressive_and_turned_jpegs_are_refused() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    for data in (encode(noise(), progressive=True), encode(noise(), exif=exif)):
        assert refusal(data[: len(data) // 2]).reason == "truncated"


def test_what_is_no_picture_is_named() -> None:
    for data, what in ((b"hello, I am text", "plain text"), (b"<!doctype html>", "HTML page"), (b"%PDF-1.4", "PDF"),
                       (b"\0\0\0\x18ftypmp42" + bytes(64), "mp4")):  # fmt: skip
        error = refusal(data)
        assert error.reason == "wrong type"
        assert what in error.detail
    assert refusal(b"\xfe\x01\x02" * 99).reason == "unreadable"


def test_empty_and_missing_files(tmp_path: Path) -> None:
    assert refusal(b"").reason == "empty"
    assert refusal(tmp_path / "none.jpg").reason == "missing"


def test_damage_in_the_middle_is_never_grey(tmp_path: Path) -> None:
    data = encode(noise(), "PNG")
    middle = len(data) // 2
    assert refusal(data[:middle] + bytes(60) + data[middle + 60 :]).reason in ("unreadable", "truncated")


def test_a_small_file_of_64_megapixels_is_refused_undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = encode(Pillow.new("L", (8000, 8000)), "PNG")
    assert len(bomb) < 100_000

    def decoded(_: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    assert refusal(bomb).reason == "over the limits"
    with pytest.raises(AssertionError):  # the trap works
        IMAGE.decode(encode(flat(), "PNG"))


def test_limits_hold_for_jpeg_arrays_and_bytes() -> None:
    small = ImageConfig(limits=MediaLimits(max_pixels=1000)).decoder()
    assert refusal(encode(flat()), small).reason == "over the limits"
    assert refusal(flat(), small).reason == "over the limits"
    assert refusal(encode(flat()), ImageConfig(limits=MediaLimits(max_bytes=50)).decoder()).reason == "over the limits"


@pytest.mark.parametrize("tag", range(1, 9))
def test_exif_orientation_is_applied(tag: int) -> None:
    upright = Pillow.fromarray(halves())
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[tag]  # Pillow's Transpose that a camera "did"
    stored = upright if undo is None else upright.transpose(Pillow.Transpose(undo))
    exif = Pillow.Exif()
    exif[0x0112] = tag
    value = IMAGE.decode(encode(stored, "JPEG", exif=exif, quality=95))[0].astype(int)
    assert np.abs(value[36, 10] - RED).max() < 20
    assert np.abs(value[36, 60] - BLUE).max() < 20


def test_grey_cmyk_alpha_palette_and_deep_pictures() -> None:
    for data in (encode(Pillow.new("L", (50, 50), 77)), encode(Pillow.new("L", (50, 50), 77), "PNG"),
                 encode(Pillow.fromarray(np.full((50, 50), 77 * 257, np.uint16)), "PNG")):  # fmt: skip
        assert np.abs(centre(IMAGE.decode(data)) - 77).max() <= 2
    cmyk = encode(Pillow.fromarray(flat()).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(centre(IMAGE.decode(cmyk)) - RED).max() < 8
    clear = encode(Pillow.new("RGBA", (50, 50), (0, 0, 0, 0)), "PNG")
    assert centre(IMAGE.decode(clear)).tolist() == [255, 255, 255]
    half = encode(Pillow.new("LA", (50, 50), (0, 128)), "PNG")
    assert np.abs(centre(IMAGE.decode(half)) - 127).max() <= 1
    palette = encode(Pillow.fromarray(flat()).convert("P"), "PNG")
    assert centre(IMAGE.decode(palette)).tolist() == pytest.approx(RED, abs=30)


def test_animations_give_their_first_frame() -> None:
    first, second = Pillow.fromarray(flat(RED)), Pillow.fromarray(flat(BLUE))
    data = encode(first, "GIF", save_all=True, append_images=[second])
    assert np.abs(centre(IMAGE.decode(data)) - RED).max() < 8


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1000, 3), (3, 1000), (7, 5), (73, 72), (2000, 1500)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_odd_sizes(width: int, height: int, kind: str) -> None:
    value = IMAGE.decode(encode(flat(RED, height, width), kind))
    assert value.shape == (1, 72, 72, 3)
    assert np.abs(value.astype(int) - RED).max() < 10  # the padding has the colour of the edge


def test_fast_and_slow_decoding_agree() -> None:
    pixels = noise(1200, 1600)
    fast, slow = IMAGE.decode(encode(pixels, quality=95)), IMAGE.decode(encode(pixels, "PNG"))
    assert np.abs(fast.astype(int) - slow).mean() < 3


def test_a_decoded_value_passes_unchanged() -> None:
    value = IMAGE.decode(encode(noise()))
    assert IMAGE.decode(value) is not None
    np.testing.assert_array_equal(IMAGE.decode(value), value)
    readonly = value.copy()
    readonly.flags.writeable = False
    IMAGE.preprocess(IMAGE.augment(IMAGE.decode(readonly), torch.Generator().manual_seed(0)))


def test_arrays_of_another_kind_are_refused() -> None:
    for bad in (
        np.zeros((9, 9, 3)),
        np.zeros((9, 9), np.uint8),
        np.zeros((9, 9, 4), np.uint8),
        np.zeros((0, 9, 9, 3), np.uint8),
    ):
        assert refusal(bad).reason == "wrong type"


# -- several pictures in a cell --------------------------------------------------------------------------------------


def test_one_bad_picture_does_not_take_the_others() -> None:
    sources = [encode(flat(RED)), b"not a picture", flat(BLUE), b""]
    value, errors = IMAGE.decode_each(sources)
    assert value is not None
    assert value.shape == (2, 72, 72, 3)
    assert [(index, error.reason) for index, error in errors] == [(1, "wrong type"), (3, "empty")]
    np.testing.assert_array_equal(IMAGE.decode(sources), value)


def test_a_cell_without_a_usable_picture_is_refused() -> None:
    error = refusal([b"", b"words, not a picture"])
    assert error.reason == "empty"
    assert "1 pictures" in error.detail
    assert refusal([]).reason == "empty"


def test_no_more_pictures_are_stored_than_asked() -> None:
    assert len(ImageConfig(max_stored=3).decoder().decode([flat()] * 5)) == 3
    assert len(ImageConfig(max_stored=3).decoder().decode(np.stack([flat()] * 5))) == 3


# -- augment and preprocess ------------------------------------------------------------------------------------------


def cell(pictures: int = 1) -> np.ndarray:
    return IMAGE.decode([noise(300 + 10 * n, 400) for n in range(pictures)])


def test_augment_follows_its_generator_and_changes_nothing_in_place() -> None:
    value = cell(4)
    before = value.copy()
    one, same, other = (IMAGE.augment(value, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert one.shape == (2, 64, 64, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    np.testing.assert_array_equal(value, before)


def test_augment_draws_among_the_pictures() -> None:
    quiet = ImageConfig(max_pictures=1, colour=0, flip=0).decoder()
    value = quiet.decode([flat((level, level, level)) for level in (10, 90, 170, 250)])
    seen = {int(quiet.augment(value, torch.Generator().manual_seed(s))[0, 0, 0, 0]) for s in range(40)}
    assert seen == {10, 90, 170, 250}


def test_flip_and_colour_can_be_off_and_on() -> None:
    value = IMAGE.decode(halves())
    plain = ImageConfig(flip=0, colour=0, min_area=1).decoder().augment(value, torch.Generator().manual_seed(0))
    flipped = ImageConfig(flip=1, colour=0, min_area=1).decoder().augment(value, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(plain[:, :, ::-1], flipped)
    colours = ImageConfig(flip=0, colour=0.5, min_area=1).decoder()
    levels = {tuple(colours.augment(value, torch.Generator().manual_seed(s))[0, 5, 5]) for s in range(5)}
    assert len(levels) == 5


def test_patches_hold_the_pixels_of_their_place() -> None:
    value = cell(2)
    fields = IMAGE.preprocess(value)
    assert fields["patches"].shape == (32, 768)
    assert fields["patches"].dtype == torch.uint8
    for token in (0, 3, 7, 21, 31):
        row, column, picture = (int(fields[name][token]) for name in ("row", "column", "picture"))
        block = value[picture, 4 + 16 * row : 20 + 16 * row, 4 + 16 * column : 20 + 16 * column]
        np.testing.assert_array_equal(fields["patches"][token].numpy(), block.reshape(-1))
    assert fields["picture"].tolist() == [0] * 16 + [1] * 16


def test_augmented_cells_are_read_whole() -> None:
    varied = IMAGE.augment(cell(), torch.Generator().manual_seed(0))
    first = IMAGE.preprocess(varied)["patches"][0].numpy()
    np.testing.assert_array_equal(first, varied[0, :16, :16].reshape(-1))


def test_preprocess_refuses_what_was_not_decoded() -> None:
    with pytest.raises(BadInput, match="image value"):
        IMAGE.preprocess(np.zeros((1, 32, 32, 3), np.uint8))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([4, 8]), st.integers(0, 9), st.integers(0, 99))
def test_token_counts_for_any_geometry(pictures: int, side: int, patch: int, margin: int, seed: int) -> None:
    image = ImageConfig(size=max(8, side * patch), patch=patch, margin=margin, max_pictures=2).decoder()
    value = image.decode([noise(40, 30)] * pictures)
    tokens = min(pictures, 2) * (image.config.size // patch) ** 2
    for fields in (
        image.preprocess(value),
        image.preprocess(image.augment(value, torch.Generator().manual_seed(seed))),
    ):
        assert {name: tuple(field.shape) for name, field in fields.items()} == {
            "patches": (tokens, 3 * patch**2), "row": (tokens,), "column": (tokens,), "picture": (tokens,)
        }  # fmt: skip


# -- the model side --------------------------------------------------------------------------------------------------


def fitted_image(values: list[np.ndarray], **changes: object) -> Image:
    config = CONFIG.replace(**changes)
    torch.manual_seed(0)
    return config.build(24, config.fit(iter(values)))


def test_fit_is_the_mean_and_spread_of_the_channels() -> None:
    values = [cell(2), cell(1)]
    pixels = np.concatenate([v.reshape(-1, 3) for v in values]).astype(float)
    fitted = CONFIG.fit(iter(values))
    np.testing.assert_allclose(fitted["mean"], pixels.mean(0))
    np.testing.assert_allclose(fitted["spread"], pixels.std(0))
    assert CONFIG.fit(iter([])) == {}
    assert CONFIG.fit([np.zeros((1, 72, 72, 3), np.uint8)])["spread"] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("norm_target", [False, True])
def test_an_untrained_head_is_about_one_away(norm_target: bool) -> None:
    value = cell(2)
    image = fitted_image([value], norm_target=norm_target)
    fields = image.preprocess(value)
    tokens = image.embed(fields) + image.positions(fields)
    target = image.target(fields)
    distance = image.distance(image.head(24)(tokens), target)
    assert tokens.shape == (32, 24)
    assert distance.shape == (32,)
    assert distance.dtype == torch.float32
    assert 0.8 < distance.mean() < 1.25
    assert image.distance(target, target).max() == 0
    assert abs(target.mean()) < 0.2
    distance.mean().backward()


def test_norm_target_takes_brightness_away() -> None:
    image = fitted_image([cell()], norm_target=True)
    dark = np.clip(cell()[:, 4:68, 4:68] // 4, 0, 255).astype(np.uint8)
    torch.testing.assert_close(
        image.target(image.preprocess(dark * 2)), image.target(image.preprocess(dark)), atol=0.03, rtol=0
    )


def test_positions_differ_and_do_not_read_content() -> None:
    image = fitted_image([cell()])
    fields = image.preprocess(cell(2))
    where = image.positions(fields)
    assert len(torch.unique(where, dim=0)) == 32
    blanked = {**fields, "patches": torch.zeros_like(fields["patches"])}
    torch.testing.assert_close(image.positions(blanked), where)
    assert image.overlap({name: value[None] for name, value in fields.items()}) is None


def test_weights_carry_no_fitted_statistics_and_blank_is_black() -> None:
    assert not {"mean", "spread"} & set(IMAGE.state_dict())
    blank = IMAGE.blank()
    assert blank["patches"].shape == (16, 768)
    assert int(blank["patches"].max()) == 0


def test_show_is_a_png_of_the_first_picture() -> None:
    value = cell(2)
    media_type, content = IMAGE.show(value)
    assert media_type == "image/png"
    np.testing.assert_array_equal(np.asarray(Pillow.open(io.BytesIO(content))), value[0])


def test_examples_are_decoded_values() -> None:
    value = IMAGE.example(3)
    np.testing.assert_array_equal(value, IMAGE.example(3))
    np.testing.assert_array_equal(IMAGE.decode(value), value)
    assert len(IMAGE.preprocess(value)["patches"]) == 16 * len(value)


def test_config_is_checked() -> None:
    with pytest.raises(BadInput, match="multiple of patch"):
        ImageConfig.parse({"size": 60})
    with pytest.raises(BadInput, match="min_area"):
        ImageConfig.parse({"min_aera": 0.5})


def test_a_jpeg_header_that_simplejpeg_has_no_name_for_is_refused_as_any_other_bad_file():
    with pytest.raises(MediaError):
        ImageConfig().decoder().decode(b"\xff\xd8\xff\xe0" + bytes(40))
