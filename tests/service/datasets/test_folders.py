"""Zip archives of images in class folders."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from service import problems
from tests.support.datasets import archive, check, picture

# The numbers of pixels of a folder tell where they came from.
CAT, DOG, GREY = picture(value=10), picture(value=20), picture(mode="L", value=30)


def decoded(content: bytes, mode: str = "RGB") -> object:
    image = Image.open(BytesIO(content)).convert(mode)
    return np.asarray(image).reshape(image.height, image.width, -1).tolist()


def test_folders_are_classes() -> None:
    found = check(archive({"dog/1.png": DOG, "cat/2.png": CAT, "dog/0.png": picture(), "cat/deep/1.PNG": CAT}))
    assert (found.facts.kind, found.facts.labels, found.facts.classes) == ("images", "classes", 2)
    assert found.facts.class_names == ["cat", "dog"]
    assert found.arrays["labels"].tolist() == [0, 0, 1, 1]
    assert found.facts.tensors == {"images": ("U8", [4, 8, 6, 3]), "labels": ("I64", [4])}
    assert found.images.tolist() == [decoded(content) for content in (CAT, CAT, picture(), DOG)]
    assert found.facts.mean == pytest.approx((found.images / 255).mean((0, 1, 2)))
    assert found.facts.notes == []


@pytest.mark.parametrize("top", ["", "photos/", "a/b/", "photos\\"])
def test_common_folders_and_debris_do_not_matter(top: str) -> None:
    members = {f"{top}cat/1.png": CAT, f"{top}dog/1.png": DOG, f"{top}.DS_Store": b"x", f"{top}cat/Thumbs.db": b"x"}
    members |= {f"__MACOSX/{top}cat/._1.png": b"x", f"{top}cat/": b"", f"{top}cat/.hidden.png": b"x"}
    found = check(archive(members))
    assert (found.facts.class_names, found.facts.notes) == (["cat", "dog"], [])


def test_files_that_are_not_taken_are_named() -> None:
    found = check(archive({"cat/1.png": CAT, "dog/1.png": DOG, "dog/1.txt": b"", "labels.csv": b"", "logo.png": CAT}))
    assert len(found.images) == 2
    assert "ignored (2): dog/1.txt, labels.csv" in found.notes
    assert "Images beside the class folders were ignored (1): logo.png" in found.notes


@pytest.mark.parametrize("members", [{"1.png": CAT, "2.png": DOG}, {"photos/1.png": CAT, "photos/2.png": DOG}])
def test_images_in_no_class_folder_have_no_labels(members: dict[str, bytes]) -> None:
    found = check(archive(members))
    assert (found.facts.labels, found.facts.classes, found.facts.class_names) == (None, None, None)
    assert found.images[:, 0, 0, 0].tolist() == [10, 20]
    assert "have no labels" in found.notes


@pytest.mark.parametrize(
    ("splits", "taken"),
    [
        (("train", "test"), "train"),
        (("Test", "TRAIN"), "TRAIN"),
        (("val", "test"), "test"),
        (("training", "validation"), "training"),
    ],
)
@pytest.mark.parametrize("top", ["", "cifar/"])
def test_of_several_parts_of_the_data_one_is_taken_and_named(splits: tuple[str, str], taken: str, top: str) -> None:
    members = {
        f"{top}{split}/{name}/1.png": picture(value=value + 100 * (split == taken))
        for split in splits
        for name, value in (("cat", 10), ("dog", 20))
    }
    found = check(archive(members))
    assert found.images[:, 0, 0, 0].tolist() == [110, 120]
    assert found.facts.class_names == ["cat", "dog"]
    (other,) = set(splits) - {taken}
    assert f"The folder {taken} was taken; ignored beside it: {other}" in found.notes


def test_a_class_may_be_called_train() -> None:
    found = check(archive({"bus/1.png": CAT, "car/1.png": DOG, "train/1.png": CAT}))
    assert found.facts.class_names == ["bus", "car", "train"]


def test_classes_are_sorted_as_imagefolder_sorts_them() -> None:
    found = check(archive({f"{number}/1.png": picture(value=number) for number in range(11)}))
    assert found.facts.class_names == ["0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9"]
    assert found.images[:, 0, 0, 0].tolist() == [0, 1, 10, *range(2, 10)]
    assert "10 comes before 2" in found.notes


def test_grey_images_stay_grey_unless_others_have_colours() -> None:
    grey = {"a/1.png": GREY, "b/2.png": GREY}
    assert check(archive(grey)).images.shape == (2, 8, 6, 1)
    found = check(archive(grey | {"b/3.png": CAT}))
    assert found.images.shape == (3, 8, 6, 3)
    assert "Some images are grey, and all were converted to RGB: 2 of 3" in found.notes


@pytest.mark.parametrize(
    ("format", "modes"),
    [
        ("PNG", ["1", "L", "LA", "P", "RGB", "RGBA"]),
        ("JPEG", ["L", "RGB", "CMYK"]),
        ("BMP", ["1", "L", "P", "RGB"]),
        ("GIF", ["L", "P"]),
        ("WEBP", ["RGB", "RGBA"]),
    ],
)
def test_every_format_and_mode(format: str, modes: list[str]) -> None:
    for mode in modes:
        content = picture(mode=mode, format=format)
        found = check(archive({f"a/1.{format}": content, "b/1.png": CAT}))
        assert found.images[0].tolist() == decoded(content)
        assert ("transparency" in found.notes) == ((format, mode) in (("PNG", "LA"), ("PNG", "RGBA")))


def test_the_name_does_not_decide_the_format() -> None:
    content = picture(format="JPEG")
    assert check(archive({"a/1.png": content, "b/1.png": CAT})).images[0].tolist() == decoded(content)


def test_sixteen_bits_are_cut_down_to_eight() -> None:
    content = picture(mode="I;16")
    found = check(archive({"a/1.png": content, "b/1.png": content}))
    assert found.images[0, ..., 0].tolist() == (np.asarray(Image.open(BytesIO(content))) >> 8).tolist()
    assert "the upper 8 were taken: 2 of 2" in found.notes


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(format: str) -> None:
    frames = [Image.open(BytesIO(content)) for content in (CAT, DOG)]
    buffer = BytesIO()
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:], **({"lossless": True} if format == "WEBP" else {}))
    found = check(archive({"a/1.gif": buffer.getvalue(), "b/1.png": DOG}))
    assert found.images[0].tolist() == decoded(CAT)
    assert "animations; their first frames were taken: 1 of 2" in found.notes


def test_the_most_frequent_size_is_taken_and_others_are_cropped() -> None:
    members = {"a/1.png": picture(8, 6), "a/2.png": picture(8, 6), "b/1.png": picture(10, 6), "b/2.png": picture(20, 30)}
    found = check(archive(members))
    assert found.images.shape == (4, 8, 6, 3)
    assert found.images[0].tolist() == decoded(members["a/1.png"])
    # An image that covers the size is only cropped.
    assert found.images[2].tolist() == np.asarray(decoded(members["b/1.png"]))[1:9].tolist()
    assert "another size than 8 x 6: 2 of 4" in found.notes


@pytest.mark.parametrize(("height", "width"), [(30, 20), (20, 30), (17, 16), (16, 17), (9, 41), (16, 16), (3, 5), (1, 1)])
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_images_get_the_bits_of_resize_and_center_crop(height: int, width: int, format: str) -> None:
    content = picture(height, width, format=format)
    found = check(archive({"a/1.png": content, "b/1.png": CAT}), size=(16, 16))
    expected = CenterCrop(16)(Resize(16, InterpolationMode.BILINEAR)(Image.open(BytesIO(content)).convert("RGB")))
    assert found.images[0].tolist() == np.asarray(expected).tolist()


def test_size_may_be_a_rectangle() -> None:
    found = check(archive({"a/1.png": picture(40, 20), "b/1.png": picture(10, 90)}), size=(5, 9))
    assert found.images.shape == (2, 5, 9, 3)
    same = check(archive({"a/1.png": CAT, "b/1.png": DOG}), size=(8, 6))
    assert same.facts.notes == []


ONE_SIZE = {"a/1.png": CAT, "b/1.png": DOG}


@pytest.mark.parametrize(
    ("members", "detail"),
    [
        ({**ONE_SIZE, "b/2.png": DOG[:-30]}, "`b/2.png` is damaged or cut off; remove it or replace it"),
        ({**ONE_SIZE, "b/2.jpg": picture(64, 64, format="JPEG")[:-300]}, "`b/2.jpg` is damaged or cut off"),
        ({**ONE_SIZE, "b/2.png": b"<html>"}, "`b/2.png` is no PNG, JPEG, BMP, GIF or WebP image"),
        ({**ONE_SIZE, "b/2.png": b""}, "`b/2.png` is no PNG"),
        ({**ONE_SIZE, "b/2.png": picture(format="TIFF")}, "`b/2.png` is no PNG"),
        ({**ONE_SIZE, "b/2.png": picture(format="PPM")}, "`b/2.png` is no PNG"),
        ({"a/1.tif": picture(format="TIFF")}, "neither arrays nor images, but a/1.tif"),
        ({"a.txt": b""}, "neither arrays nor images, but a.txt"),
        ({}, "no files"),
        ({"net/data.pkl": b"", "net/data/0": b""}, "written by torch.save"),
        ({"a/1.png": picture(8, 6), "b/1.png": picture(8, 7)}, r"no two of the 2 images have the same size.*\?size=224"),
    ],
)
def test_bad_archives_are_refused_with_the_reason(members: dict[str, bytes], detail: str) -> None:
    with pytest.raises(problems.BadDataset, match=detail):
        check(archive(members))


def test_images_that_are_too_large_are_refused_before_they_are_decoded() -> None:
    bomb = BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    header = BytesIO()
    Image.new("L", (1, 1)).save(header, "GIF")
    screen = bytearray(header.getvalue())
    screen[6:10] = b"\xff\xff\xff\xff"
    for content in (bomb.getvalue(), bytes(screen)):
        assert len(content) < 100_000
        with pytest.raises(problems.BadDataset, match=r"`b/2.png` has more than \d+ pixels"):
            check(archive({**ONE_SIZE, "b/2.png": content}), max_bytes=2**32)


def test_images_that_take_too_much_together_are_refused() -> None:
    with pytest.raises(problems.BadDataset, match=r"more than 1000 bytes unpacked.*\?size="):
        check(archive(ONE_SIZE), size=(64, 64), max_bytes=1000)
    with pytest.raises(problems.BadDataset, match="the image files have more than 100 bytes together"):
        check(archive(ONE_SIZE), max_bytes=100)


def test_the_names_of_very_many_classes_are_left_out() -> None:
    found = check(archive({f"{'long' * 50}{number}/1.png": CAT for number in range(400)}))
    assert (found.facts.classes, found.facts.class_names) == (400, None)
    assert "they were left out" in found.notes
