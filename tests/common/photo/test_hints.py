import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import spsolve

from common.color.lab import rgb8_to_lab
from common.photo.diffusion import diffuse, energy_matrix
from common.photo.hints import Hint, hints_of_dots, parse_hint, spread_hints
from common.utils.errors import UserError

RED, BLUE = (60.0, 40.0), (20.0, -60.0)


def picture(L):
    return torch.from_numpy(np.asarray(L, dtype=np.float32))[None, None]


def grey(L):
    return torch.zeros(1, 2, *L.shape[-2:])


def at(x, y, L, ab):
    """A hint on the pixel (x, y)."""
    height, width = L.shape[-2:]
    return Hint((x + 0.5) / width, (y + 0.5) / height, ab)


def strength(ab, color):
    """Fraction of a hint's color that reached each pixel of a grey prediction: 0..1, [h, w]."""
    color = torch.tensor(color).view(1, 2, 1, 1)
    return ((ab * color).sum(1) / color.square().sum())[0]


def halves(left=40.0, right=70.0, height=40, width=60):
    L = np.full((height, width), left)
    L[:, width // 2 :] = right
    return picture(L)


def test_a_hint_fills_its_region_and_does_not_cross():
    L = halves()
    for x, y, at_least in ((15, 20, 0.85), (2, 2, 0.7), (28, 37, 0.7)):  # from the middle, from its far corners
        arrived = strength(spread_hints(L, grey(L), [at(x, y, L, RED)]), RED)
        assert arrived[:, :30].min() > at_least
        assert arrived[:, 30:].max() < 0.05


@pytest.mark.parametrize("blur", [2, 4, 6, 8])
def test_a_blurred_edge_is_an_edge(blur):
    """Each of its steps alone would let color through."""
    ramp = np.interp(np.arange(60), [30 - blur / 2, 30 + blur / 2], [40, 70])
    L = picture(np.tile(ramp, (40, 1)))
    arrived = strength(spread_hints(L, grey(L), [at(10, 20, L, RED)]), RED)
    assert arrived[:, :24].min() > 0.8
    assert arrived[:, 36:].max() < 0.1


def test_a_line_of_one_pixel_is_an_edge():
    L = picture(np.full((40, 60), 50.0))
    L[..., 30] = 20
    arrived = strength(spread_hints(L, grey(L), [at(10, 20, L, RED)]), RED)
    assert arrived[:, :30].min() > 0.8
    assert arrived[:, 31:].max() < 0.05


@pytest.mark.parametrize("deviation", [2, 4, 7])
def test_grain_does_not_stop_a_hint(deviation):
    L = halves() + torch.from_numpy(np.random.default_rng(0).normal(0, deviation, (40, 60))).float()
    arrived = strength(spread_hints(L, grey(L), [at(15, 20, L, RED)]), RED)
    assert arrived[:, :29].quantile(0.05) > 0.6
    assert arrived[:, 31:].max() < 0.2


@pytest.mark.parametrize(("x", "y"), [(15, 20), (0, 20), (0, 0), (29, 20)])
def test_a_hint_on_a_speck_of_dust_colors_the_region_around_it(x, y):
    L = halves()
    L[..., y, x] = 95
    arrived = strength(spread_hints(L, grey(L), [at(x, y, L, RED)]), RED)
    assert arrived[:, :30].min() > 0.5
    assert arrived[:, 30:].max() < 0.05


@pytest.mark.parametrize("y", [0, 20, 39])
@pytest.mark.parametrize("x", [29, 30])
def test_a_hint_beside_an_edge_stays_on_its_side(x, y):
    L = halves()
    arrived = strength(spread_hints(L, grey(L), [at(x, y, L, RED)]), RED)
    inside, outside = (arrived[:, :30], arrived[:, 30:]) if x < 30 else (arrived[:, 30:], arrived[:, :30])
    assert inside.min() > 0.5
    assert outside.max() < 0.05


def test_no_hints_change_nothing():
    L = halves()
    ab = torch.randn(1, 2, 40, 60)
    assert torch.equal(spread_hints(L, ab, []), ab)


def test_two_hints_of_different_colors_keep_to_their_regions():
    L = halves()
    ab = spread_hints(L, grey(L), [at(10, 10, L, RED), at(50, 30, L, BLUE)])[0]
    torch.testing.assert_close(ab[:, :, :30], torch.tensor(RED).view(2, 1, 1).expand(2, 40, 30), atol=8, rtol=0)
    torch.testing.assert_close(ab[:, :, 30:], torch.tensor(BLUE).view(2, 1, 1).expand(2, 40, 30), atol=8, rtol=0)


def test_two_hints_in_one_region_meet_half_way():
    L = picture(np.full((21, 41), 50.0))
    ab = spread_hints(L, grey(L), [at(5, 10, L, RED), at(35, 10, L, BLUE)])
    middle = (np.array(RED) + BLUE) / 2
    assert ab[0, :, 10, 20].numpy() == pytest.approx(middle, abs=2.5)
    a = ab[0, 0, 10, 5:36]
    assert (a.diff() < 0).all()  # from red to blue without turning back


@pytest.mark.parametrize("flip", [(2,), (3,), (2, 3)])
def test_a_mirrored_photograph_is_colored_in_mirror_image(flip):
    rng = np.random.default_rng(1)
    L = picture(rng.uniform(30, 60, (5, 7)).repeat(6, 0).repeat(6, 1))
    places = [(4, 9, RED), (33, 20, BLUE)]
    height, width = L.shape[-2:]
    ab = spread_hints(L, grey(L), [at(x, y, L, c) for x, y, c in places])
    turned = [(width - 1 - x if 3 in flip else x, height - 1 - y if 2 in flip else y, c) for x, y, c in places]
    mirrored = spread_hints(L.flip(flip), grey(L), [at(x, y, L, c) for x, y, c in turned])
    torch.testing.assert_close(mirrored.flip(flip), ab, atol=0.02, rtol=0)


def test_a_hint_equal_to_the_prediction_changes_nothing():
    L = halves()
    ab = torch.randn(1, 2, 40, 60, generator=torch.Generator().manual_seed(0)) * 20
    hint = at(12, 30, L, tuple(ab[0, :, 30, 12].tolist()))
    torch.testing.assert_close(spread_hints(L, ab, [hint]), ab, atol=1e-5, rtol=0)
    # but it holds its place against another
    held = spread_hints(L, ab, [hint, at(20, 10, L, RED)])
    free = spread_hints(L, ab, [at(20, 10, L, RED)])
    assert (held - ab)[0, :, 26:34, 8:16].norm() < 0.7 * (free - ab)[0, :, 26:34, 8:16].norm()


def test_a_prediction_keeps_its_detail_under_a_hint():
    L = picture(np.full((30, 30), 50.0))
    ab = torch.randn(1, 2, 30, 30, generator=torch.Generator().manual_seed(0)) * 5
    added = spread_hints(L, ab, [at(15, 15, L, RED)]) - ab
    expected = torch.tensor(RED) - ab[0, :, 15, 15]
    torch.testing.assert_close(added[0, :, 10:20, 10:20], expected.view(2, 1, 1).expand(2, 10, 10), atol=8, rtol=0)


def test_far_away_the_prediction_stays():
    """Without edges, along the diagonal from a hint near a corner."""
    L = picture(np.full((100, 100), 50.0))
    arrived = strength(spread_hints(L, grey(L), [at(5, 5, L, RED)]), RED).diagonal()
    assert (arrived[5:].diff() < 0).all()
    assert arrived[30] > 0.75
    assert 0.2 < arrived[50] < 0.5
    assert arrived[-1] < 0.1


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_exact_bounded_and_independent_of_order(height, width, data):
    """Exact at its pixel, also at borders; never beyond the hints' differences; the order does not matter."""
    seed = data.draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    L = picture(rng.uniform(0, 100, (height, width)))
    ab = torch.from_numpy(rng.normal(0, 20, (1, 2, height, width))).float()
    count = data.draw(st.integers(1, min(4, height * width)))
    pixels = rng.choice(height * width, count, replace=False)
    if data.draw(st.booleans()):
        pixels[0] = height * width - 1
        pixels = np.unique(pixels)
    given = [at(p % width, p // width, L, tuple(rng.uniform(-60, 60, 2).tolist())) for p in pixels]
    out = spread_hints(L, ab, given)
    assert out.shape == ab.shape
    assert out.dtype == ab.dtype
    differences = []
    for p, hint in zip(pixels, given, strict=True):
        y, x = divmod(int(p), width)
        assert out[0, :, y, x].tolist() == pytest.approx(hint.ab, abs=1e-4)
        differences.append(torch.tensor(hint.ab) - ab[0, :, y, x])
    differences = torch.stack([*differences, torch.zeros(2)])
    added = (out - ab)[0]
    assert (added.amax((1, 2)) <= differences.amax(0) + 1e-4).all()
    assert (added.amin((1, 2)) >= differences.amin(0) - 1e-4).all()
    torch.testing.assert_close(spread_hints(L, ab, given[::-1]), out, atol=0.02, rtol=0)


def test_corners_and_the_far_border_are_pixels():
    L = halves()
    for x, y in ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0)):
        out = spread_hints(L, grey(L), [Hint(x, y, RED)])
        assert out[0, :, -1 if y else 0, -1 if x else 0].tolist() == pytest.approx(RED)


def test_of_two_hints_on_one_pixel_the_later_counts():
    L = halves()
    both = spread_hints(L, grey(L), [at(5, 5, L, BLUE), at(5, 5, L, RED)])
    assert torch.equal(both, spread_hints(L, grey(L), [at(5, 5, L, RED)]))


@pytest.mark.parametrize("kind", ["flat", "noise", "regions"])
def test_the_solver_finds_what_a_direct_solve_finds(kind):
    """At a size where several levels are merged."""
    rng = np.random.default_rng(2)
    L = {
        "flat": np.full((90, 110), 50.0),
        "noise": rng.uniform(0, 100, (90, 110)),
        "regions": rng.uniform(20, 80, (6, 11)).repeat(15, 0).repeat(10, 1) + rng.normal(0, 0.5, (90, 110)),
    }[kind]
    pixels = rng.choice(L.size, 5, replace=False)
    values = np.hstack([np.ones((5, 1)), rng.normal(0, 30, (5, 2))])
    got = diffuse(L, pixels, values)
    matrix = energy_matrix(L).astype(np.float64).tolil()
    matrix[pixels] = 0
    matrix[pixels, pixels] = 1
    right = np.zeros((L.size, 3))
    right[pixels] = values
    expected = np.stack([spsolve(matrix.tocsc(), column) for column in right.T], axis=1)
    assert np.abs(got - expected)[:, 0].max() < 0.01
    assert np.abs(got - expected)[:, 1:].max() < 0.5


def ab_of(color):
    return tuple(rgb8_to_lab(torch.tensor(color, dtype=torch.uint8).view(3, 1, 1))[1:, 0, 0].tolist())


def test_parse():
    hint = parse_hint(" 120, 80,#C03020", (100, 200))
    assert (hint.x, hint.y) == (120.5 / 200, 80.5 / 100)
    assert hint.ab == pytest.approx(ab_of([0xC0, 0x30, 0x20]), abs=1e-4)
    assert parse_hint("0,0,#808080", (1, 1)).ab == pytest.approx((0, 0), abs=0.01)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("120,80", "not of the form x,y,color"),
        ("120,80,reddish", "'reddish' is not a color: expected a name"),
        ("120,80,#12345", "'#12345' is not a color"),
        ("120,80,#12345g", "'#12345g' is not a color"),
        ("120,80,#c0302040", "not a color"),
        ("120,80,red,-1", "not of the form"),
        ("120,80,red,201", "radius of hint '120,80,red,201' is 201: expected 0 to 200"),
        ("1.5,80,#123456", "not of the form"),
        ("", "not of the form"),
        ("200,80,#123456", r"outside of the photograph, which is 200 x 100"),
        ("-1,0,#123456", "outside"),
        ("0,100,#123456", "outside"),
    ],
)
def test_invalid_hints_are_refused_in_one_sentence(text, says):
    with pytest.raises(UserError, match=says) as error:
        parse_hint(text, (100, 200))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "color"), [("red", [255, 0, 0]), ("Navy", [0, 0, 128]), ("#fff", [255] * 3)])
def test_names_and_short_forms_of_colors(name, color):
    assert parse_hint(f"3,4,{name}", (10, 10)).ab == pytest.approx(ab_of(color), abs=1e-4)


def test_a_radius_is_a_disc_of_one_color():
    L = picture(np.random.default_rng(0).uniform(0, 100, (40, 60)))  # edges everywhere
    ab = spread_hints(L, grey(L), [parse_hint("30,20,red,8", (40, 60))])[0]
    y, x = np.mgrid[:40, :60]
    distance = np.hypot(y - 20, x - 30)
    inside = torch.from_numpy(distance <= 8)
    torch.testing.assert_close(ab[:, inside], torch.tensor(ab_of([255, 0, 0]))[:, None].expand(-1, inside.sum()))
    assert ab[:, torch.from_numpy(distance > 12)].norm(dim=0).median() < 5


def test_a_stroke_is_followed():
    """It crosses an edge of L, which a dot at its center does not."""
    dots = canvas(40, 60)
    dots[18:21, 5:55] = (255, 0, 0, 255)
    (hint,) = hints_of_dots(dots, (40, 60))
    L = halves()
    arrived = strength(spread_hints(L, grey(L), [hint]), ab_of([255, 0, 0]))
    assert arrived[:, 4:56].min() > 0.5
    dot = strength(spread_hints(L, grey(L), [hint._replace(points=())]), ab_of([255, 0, 0]))
    assert dot.amin() < 0.05


def test_features_keep_a_hint_on_its_object():
    """Two objects without an edge of L between them, which only the features tell apart."""
    L = picture(np.full((40, 60), 50.0))
    features = torch.zeros(1, 3, 10, 15)
    features[..., 8:] = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1)
    hints = [at(10, 20, L, RED)]
    arrived = strength(spread_hints(L, grey(L), hints, features), RED)
    assert arrived[:, :28].min() > 0.8
    assert arrived[:, 36:].max() < 0.1
    assert strength(spread_hints(L, grey(L), hints), RED)[:, 36:].max() > 0.5
    flat = spread_hints(L, grey(L), hints, torch.ones(1, 3, 10, 15))
    assert strength(flat, RED)[:, 36:].max() > 0.5  # features that are equal everywhere limit nothing
    both = spread_hints(L, grey(L), [*hints, at(50, 20, L, BLUE)], features)[0]
    torch.testing.assert_close(both[:, :, 2:26], torch.tensor(RED).view(2, 1, 1).expand(2, 40, 24), atol=9, rtol=0)
    torch.testing.assert_close(both[:, :, 38:58], torch.tensor(BLUE).view(2, 1, 1).expand(2, 40, 20), atol=9, rtol=0)


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_a_parsed_hint_lies_on_its_pixel(height, width, data):
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    hint = parse_hint(f"{x},{y},#102030", (height, width))
    assert (int(hint.x * width), int(hint.y * height)) == (x, y)


def canvas(height=60, width=90):
    return np.zeros((height, width, 4), dtype=np.uint8)


def test_each_dot_is_one_hint_at_its_center():
    dots = canvas()
    dots[10:15, 20:25] = (200, 30, 30, 255)
    dots[40:43, 70:73] = (20, 40, 220, 255)
    dots[55, 3] = (0, 160, 0, 255)
    found = hints_of_dots(dots, (600, 900))
    places = np.array([(h.x * 90, h.y * 60) for h in found])
    assert places == pytest.approx(np.array([(22.5, 12.5), (71.5, 41.5), (3.5, 55.5)]))
    for hint, color in zip(found, ([200, 30, 30], [20, 40, 220], [0, 160, 0]), strict=True):
        assert hint.ab == pytest.approx(ab_of(color), abs=1e-3)


def test_a_dot_of_two_colors_has_their_mean_and_a_ring_a_place_on_itself():
    dots = canvas()
    dots[10:14, 10:12] = (255, 0, 0, 255)
    dots[10:14, 12:14] = (0, 0, 255, 255)
    (hint,) = hints_of_dots(dots, (60, 90))
    assert hint.ab == pytest.approx(np.mean([ab_of([255, 0, 0]), ab_of([0, 0, 255])], axis=0), abs=1e-3)
    ring = canvas()
    ring[20:31, 20:31] = (255, 0, 0, 255)
    ring[22:29, 22:29] = 0
    (hint,) = hints_of_dots(ring, (60, 90))
    assert ring[int(hint.y * 60), int(hint.x * 90), 3] == 255


def test_soft_rims_belong_to_their_dot_and_faint_traces_are_none():
    dots = canvas()
    dots[19:26, 19:26] = (255, 0, 0, 60)
    dots[20:25, 20:25] = (255, 0, 0, 255)
    (hint,) = hints_of_dots(dots, (60, 90))
    assert hint.ab == pytest.approx(ab_of([255, 0, 0]), abs=1e-3)


@pytest.mark.parametrize("ground", [0, 128, 255, "opaque"])
def test_without_transparency_what_is_colored_on_grey_is_a_dot(ground):
    dots = np.full((60, 90, 3), 128 if ground == "opaque" else ground, dtype=np.uint8)
    dots[30:34, 40:44] = (30, 200, 60)
    if ground == "opaque":
        dots = np.dstack([dots, np.full((60, 90), 255, dtype=np.uint8)])
    (hint,) = hints_of_dots(dots, (120, 180))
    assert (int(hint.x * 90), int(hint.y * 60)) in [(x, y) for x in (41, 42) for y in (31, 32)]
    assert hint.ab == pytest.approx(ab_of([30, 200, 60]), abs=1e-3)


def test_pictures_without_hints_are_refused_in_one_sentence():
    with pytest.raises(UserError, match="has no colored dots"):
        hints_of_dots(canvas(), (60, 90))
    with pytest.raises(UserError, match="has no colored dots"):
        hints_of_dots(np.full((60, 90, 3), 77, dtype=np.uint8), (60, 90))
    with pytest.raises(UserError, match=r"the picture of hints is 90 x 60 and the photograph 60 x 90"):
        hints_of_dots(canvas(), (90, 60))
    colored = np.full((60, 90, 3), (200, 30, 30), dtype=np.uint8)
    with pytest.raises(UserError, match=r"colored in 1 places over 100% of it"):
        hints_of_dots(colored, (60, 90))
    speckled = canvas(200, 300)
    speckled[::4, ::4] = (200, 30, 30, 255)
    with pytest.raises(UserError, match="colored in 3750 places"):
        hints_of_dots(speckled, (200, 300))
