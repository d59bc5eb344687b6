from __future__ import annotations

import numpy as np
import pytest

from seg_l1.display import channels, colors, pictures


def test_classes_have_colors_of_their_own_and_none_is_gray():
    classes = ["background", *map(str, range(18))]
    colors = pictures.palette(classes).astype(int)
    assert colors[0].tolist() == [0, 0, 0]
    assert len({tuple(color) for color in colors}) == 19
    assert (np.ptp(colors[1:], axis=1) > 20).all()


def test_an_overlay_paints_labeled_pixels_and_shows_the_gray_of_the_others():
    image = np.full((1, 3, 3), [30, 60, 90], dtype=np.uint8)
    colors = pictures.palette(["background", "a"])
    painted = pictures.overlay(image, np.array([[0, 1, 255]], dtype=np.uint8), colors=colors)
    assert painted[0, 0].tolist() == painted[0, 2].tolist() == [60, 60, 60]
    assert np.abs(painted[0, 1].astype(int) - colors[1]).max() < 60


def test_an_image_grid_has_a_column_per_picture_and_three_rows():
    example = pictures.Example(
        np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.uint8), np.ones((20, 30), np.uint8)
    )  # fmt: skip
    grid = pictures.image_grid([example] * 4, pictures.palette(["a", "b"]), height=40)
    assert grid.shape == (3, 3 * 40, 4 * 60)


def test_colors_are_far_from_each_other_and_from_gray():
    """In CIELAB: 2.3 is just noticeable (Mahy et al. 1994); an overlay keeps 3/4 of a color."""
    for count, least in ((10, 27), (40, 27), (100, 18), (254, 12)):
        places = colors.lab(pictures.palette([f"c{i}" for i in range(count)]))
        distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
        np.fill_diagonal(distances, np.inf)
        assert distances.min() > least
        assert np.hypot(places[:, 1], places[:, 2]).min() > 25


def test_the_color_of_a_class_does_not_depend_on_those_after_it():
    names = [f"c{i}" for i in range(60)]
    assert np.array_equal(pictures.palette(names[:19]), pictures.palette(names)[:19])


def test_lab_of_known_colors():
    """Published values for sRGB and D65: white, red, and middle gray."""
    known = {(255, 255, 255): (100, 0, 0), (255, 0, 0): (53.24, 80.09, 67.20),
             (119, 119, 119): (50.03, 0, 0)}  # fmt: skip
    for rgb, expected in known.items():
        np.testing.assert_allclose(colors.lab(np.array(rgb)), expected, atol=0.1)


ROWS = [
    ("stem", 16, 4, 10, 2, 4),
    ("dead $x$", 8, 0, 8, 0, 1),
    ("padded", 16, 5, 3, 8, 8),
    ("whole", 32, 32, 0, 0, 32),
]


def test_channels_have_a_bar_per_layer_from_top_to_bottom():
    figure = channels.channels_figure(ROWS, title="before $ and after")
    (axes,) = figure.axes
    assert axes.yaxis_inverted()
    widths = [[round(bar.get_width()) for bar in part] for part in axes.containers]
    assert widths == [[4, 1, 8, 32], [10, 7, 0, 0], [2, 0, 8, 0]]
    assert [sum(parts) for parts in zip(*widths, strict=True)] == [row[1] for row in ROWS]
    ends = [text.get_text() for text in axes.texts]
    assert ends == ["16 → 4", "8 → 1", "16 → 8", "32"]


@pytest.mark.parametrize("count", [1, 60, 120, 121, 500])
def test_deep_networks_have_bars_of_several_layers(count):
    bars = channels.grouped([channels.Bar(f"layer{i}", 8, 3, 4, 1, 3) for i in range(count)])
    assert len(bars) <= 120
    assert sum(bar.total for bar in bars) == 8 * count
    assert (bars[0].name == "layer0") == (count <= 120)
    figure = channels.channels_figure(list(bars), title="")
    assert figure.get_figheight() <= channels.TALLEST + 0.01


def test_channels_are_saved_as_a_png_file(tmp_path):
    channels.save_channels(tmp_path / "compact.png", ROWS, title="it")
    assert (tmp_path / "compact.png").read_bytes().startswith(b"\x89PNG")
