"""Pictures as any program writes them come in as the same pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from nnlab.errors import InputError
from nnlab.vision.pictures import Resize, picture_shape, read_picture

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (3, 5), np.uint8)
COLOUR = RNG.integers(0, 256, (3, 5, 3), np.uint8)


@pytest.fixture
def save(tmp_path):
    def save(picture, name="a.png", **options):
        picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        picture.save(tmp_path / name, **options)
        return tmp_path / name

    return save


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp"])
def test_grey_and_colour(save, name):
    path = save(COLOUR, name, **({"lossless": True} if name == "a.webp" else {}))
    np.testing.assert_array_equal(read_picture(path), COLOUR)
    assert picture_shape(path) == (3, 5, 3)
    luma = COLOUR @ [0.299, 0.587, 0.114]
    assert abs(read_picture(path, 1)[..., 0] - luma).max() <= 1
    if name != "a.webp":  # which knows colour alone
        path = save(GREY, name)
        np.testing.assert_array_equal(read_picture(path), GREY[..., None])
        np.testing.assert_array_equal(read_picture(path, 3), np.stack([GREY] * 3, -1))
        assert picture_shape(path) == (3, 5, 1)


def test_sixteen_bits_and_one(save):
    values = np.array([[0, 128, 129, 257, 65535], [1000, 30000, 32767, 32768, 65000]], np.uint16)
    read = read_picture(save(values))
    np.testing.assert_array_equal(read[..., 0], np.rint(values / 257))
    assert picture_shape(save(values)) == (2, 5, 1)
    np.testing.assert_array_equal(read_picture(save(GREY > 99))[..., 0], 255 * (GREY > 99))
    with pytest.raises(InputError, match=r"a\.tif holds floating-point pixels, expected 8 or 16"):
        read_picture(save(GREY.astype(np.float32), "a.tif"))


def test_transparency_lies_on_white(save):
    half = np.dstack([COLOUR, np.where(GREY > 99, 255, 0)]).astype(np.uint8)
    expected = np.where(GREY[..., None] > 99, COLOUR, 255)
    np.testing.assert_array_equal(read_picture(save(half)), expected)
    grey = np.dstack([GREY, np.where(GREY > 99, 255, 0)]).astype(np.uint8)
    read = read_picture(save(Image.fromarray(grey, "LA")))
    np.testing.assert_array_equal(read[..., 0], np.where(GREY > 99, GREY, 255))


def test_palette_and_inks(save):
    few = (COLOUR // 128 * 255).astype(np.uint8)
    picture = Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(read_picture(save(picture)), few)
    path = save(Image.new("CMYK", (4, 2), (255, 0, 0, 0)), "a.jpg")
    assert (abs(read_picture(path).astype(int) - [0, 255, 255]) < 8).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_was_up_is_up(save, orientation):
    """The eight orientations of EXIF are the moves that they name, undone."""
    stored = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2),
        6: np.rot90(COLOUR, 1),
        7: COLOUR[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOUR, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(np.ascontiguousarray(stored), exif=exif)
    np.testing.assert_array_equal(read_picture(path), COLOUR)
    assert picture_shape(path) == (3, 5, 3)


def test_sizes():
    image = np.zeros((40, 20, 3), np.uint8)
    image[:10] = 255  # the quarter at the top
    crop, stretch, pad = (Resize(8, 8, fit)(image)[..., 0] for fit in ("crop", "stretch", "pad"))
    assert not crop[1:].any()  # rows 10 to 30 are left, their white is cut off
    assert (stretch[:2] > 200).all() and not stretch[4:].any()
    assert not pad[:, :2].any() and not pad[:, 6:].any() and (pad[0, 2:6] == 255).all()
    assert Resize(4, 4)(image[..., :1]).shape == (4, 4, 1)
    with pytest.raises(InputError, match="fit is 'cut'"):
        Resize(8, 8, "cut")(image)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="float32 of shape"):
        Resize(8, 8)(image.astype(np.float32))


def test_a_jpeg_is_shrunk_as_it_is_decoded_and_looks_the_same(save):
    rows, columns = np.mgrid[:256, :384]
    smooth = np.stack([rows, columns // 2, rows // 2 + columns // 3], -1).astype(np.uint8)
    path = save(smooth, "a.jpg", quality=95)
    small = read_picture(path, resize=Resize(16, 24))
    assert abs(small.astype(int) - Resize(16, 24)(read_picture(path))).max() <= 4


def jpeg():
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected PNG, JPEG or another format"),
        (b"<html>", "is no image that Pillow knows"),
        (jpeg()[:900], "cannot be read as an image: image file is truncated"),
        (jpeg()[:9], "is no image that Pillow knows|cannot be read as an image"),
    ],
    ids=["empty", "other", "cut off", "header"],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{path} ({message}).*\\.$") as error:
        read_picture(path)
    assert "\n" not in str(error.value)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match=r"a\.png cannot be read: No such file"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(InputError, match=f"^{tmp_path} is a folder"):
        picture_shape(tmp_path)
