"""MOT ground truth: read with every value checked, and taken as detections."""

from pathlib import Path

import numpy as np
import pytest

from wildray.config import Config, DetectConfig
from wildray.errors import ConfigError, DataError
from wildray.mining.detect import detect
from wildray.mining.detectors.mot_file import medium_name, read_mot
from wildray.mining.detectors.mot_results import read_mot_results
from wildray.schema import DETECTIONS, FRAMES, MEDIA
from wildray.store import Store

PLAIN = "2,3,10,20,30,40,1,1,1\n1,7,0,0,10,10,1,1,1\n2,1,50,60,10,10,0,1,1\n\n1,3,-5,4,20,30,1,1,1\n"


def write(folder: Path, text: str = PLAIN, name: str = "pond_gt_mot.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def config(**values: object) -> DetectConfig:
    return DetectConfig.model_validate({"mot_fps": 10.0, "mot_jitter": 0.0, "mot_missed": 0.0, **values})


def crowd(num_frames: int = 200, num: int = 20) -> str:
    return "".join(
        f"{frame},{animal},{10 + 40 * animal},{5 * animal + 50},30,60,1,1,1\n"
        for frame in range(1, num_frames + 1)
        for animal in range(num)
    )


def test_boxes_are_read_in_order_of_frame_and_identity(tmp_path: Path) -> None:
    truth = read_mot(write(tmp_path))
    assert truth.name == "pond"
    assert truth.frame_index.tolist() == [0, 0, 1]
    assert truth.identity.tolist() == [3, 7, 3]
    assert truth.xyxy_px.tolist() == [[-5, 4, 15, 34], [0, 0, 10, 10], [10, 20, 40, 60]]
    assert truth.colour is None
    assert truth.num_frames == 2
    shuffled = read_mot(write(tmp_path, "\n".join(reversed(PLAIN.splitlines()))))
    assert shuffled.xyxy_px.tolist() == truth.xyxy_px.tolist()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/MOT17-02/gt/gt.txt", "MOT17-02"),
        ("x_gt_mot.txt", "x"),
        ("x_gt.txt", "x"),
        ("x.txt", "x"),
        ("_gt.txt", "_gt"),
    ],
)
def test_names_of_media(path: str, name: str) -> None:
    assert medium_name(Path(path)) == name


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1,2,3,4,5", "frame,id,x,y,w,h"),
        ("frame,id,x,y,w,h", "numbers"),
        ("1,2,3,4,nan,5", "finite numbers"),
        ("0,2,3,4,5,5", "a whole frame number from 1"),
        ("1.5,2,3,4,5,5", "a whole frame number from 1"),
        ("1e300,2,3,4,5,5", "a whole frame number from 1"),
        ("3000000000,2,3,4,5,5", "a whole frame number from 1"),
        ("1,-1,3,4,5,5", "files of detections, which have none"),
        ("1,2,3,4,0,5", "with sides above 0"),
        ("1,2,3,4,5,-5", "with sides above 0"),
        ("1,2,3,4,1e9,5", "at most 100,000"),
        ("1,2,1e9,4,5,5", "at most 100,000"),
        ("1,7,3,4,5,5", "identity 7 once in frame 1; an earlier line has it too"),
        ("1,2," + "9" * 5000 + ",4,5,5", "with sides above 0|finite"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, expected: str) -> None:
    path = write(tmp_path, f"1,7,0,0,10,10\n{line}\n")
    with pytest.raises(DataError, match=f"line 2 is .*expected .*({expected})") as caught:
        read_mot(path)
    assert len(str(caught.value)) < 500


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_mot(tmp_path / "gone.txt")
    with pytest.raises(DataError, match="holds no boxes"):
        read_mot(write(tmp_path, "\n\n"))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="it is not text"):
        read_mot(tmp_path / "binary.txt")


def save_colours(folder: Path, **arrays: object) -> None:
    rows = {
        "frame": np.array([2, 1]),
        "label": np.array([2, 6]),
        "xywh": np.array([[10, 20, 30, 40], [0, 0, 10, 10]], np.float32),
        "rgb54": np.stack([np.full(54, 7.6), np.linspace(-3, 300, 54)]).astype(np.float32),
        "size": np.array([640, 360]),
    }
    np.savez(folder / "pond.npz", **(rows | arrays))


def test_colours_beside_it_are_those_of_equal_frame_and_place(tmp_path: Path) -> None:
    path = write(tmp_path)
    plain = read_mot(path).digest
    save_colours(tmp_path)
    truth = read_mot(path)
    assert truth.has_colour.tolist() == [False, True, True]
    assert truth.colour is not None
    assert set(truth.colour[2].tolist()) == {8}
    assert truth.colour[1, [0, -1]].tolist() == [0, 255]
    assert truth.frame_size_px == (640, 360)
    assert truth.digest != plain


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"rgb54": np.zeros((2, 53))}, r"rgb54 \(2, 53\): expected"),
        ({"frame": np.array([{}, {}], dtype=object)}, "cannot be read"),
        ({"frame": np.array(["a", "b"])}, "expected arrays"),
        ({"frame": np.array([8, 9])}, "of other boxes"),
    ],
)
def test_colours_that_are_none(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    save_colours(tmp_path, **arrays)
    with pytest.raises(DataError, match=message):
        read_mot(write(tmp_path))
    (tmp_path / "pond.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match="cannot be read"):
        read_mot(write(tmp_path))


def test_without_jitter_and_misses_the_truth_itself_is_found(tmp_path: Path) -> None:
    results = read_mot_results([write(tmp_path)], config(frame_size="100x80"))
    (item,) = results.items()
    assert results.is_absent(item.uri)
    assert item.camera_id == "pond"
    found = list(results.frames_at(item.uri, frame_size_px=(100, 80)))
    assert [(frame, time_s) for frame, time_s, _, _ in found] == [(0, 0.0), (1, 0.1)]
    np.testing.assert_allclose(found[0][2].xyxy_px, [[0, 4, 15, 34], [0, 0, 10, 10]], atol=1e-4)
    np.testing.assert_allclose(found[1][2].xyxy_px, [[10, 20, 40, 60]], atol=1e-4)
    row = results.media_row(item)
    assert (row["fps"], row["num_frames"], row["duration_s"], row["width_px"]) == (10.0, 2, 0.2, 100)
    least = read_mot_results([write(tmp_path)], config())
    assert least.frame_size_px == (40, 60)


def test_jitter_misses_and_false_boxes_are_as_many_as_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, crowd())
    listed = read_mot_results([path], config(mot_jitter=0.05, mot_missed=0.25, frame_size="2000x1000")).files["pond"]
    assert abs(len(listed.score) / 4000 - 0.75) < 0.03
    assert (listed.score >= 0.3).all()
    width = (listed.xyxy[:, 2] - listed.xyxy[:, 0]) * 2000
    assert abs(width.mean() - 30) < 0.2
    assert abs(width.std() - 30 * 0.05 * np.sqrt(2)) < 0.15
    invented = read_mot_results([path], config(mot_false_boxes=1.5, frame_size="2000x1000")).files["pond"]
    assert abs(len(invented.score) - 4000 - 300) < 60
    assert (invented.score < 0.3).any()


def test_a_frames_boxes_are_the_same_at_every_rate_and_differ_by_seed(tmp_path: Path) -> None:
    path = write(tmp_path, crowd(num_frames=30))
    options = {"mot_jitter": 0.05, "mot_missed": 0.1, "mot_false_boxes": 0.5, "frame_size": "2000x1000"}
    every, third, other = (
        read_mot_results([path], config(**options, **more)).files["pond"]
        for more in ({}, {"mot_every": 3}, {"mot_seed": 1})
    )
    assert third.frames.tolist() == list(range(0, 30, 3))
    same = every.frame_number % 3 == 0
    np.testing.assert_array_equal(every.xyxy[same], third.xyxy)
    np.testing.assert_array_equal(every.score[same], third.score)
    assert len(other.xyxy) != len(every.xyxy) or not np.array_equal(other.xyxy, every.xyxy)


def test_several_files_are_named_by_the_folders_that_tell_them_apart(tmp_path: Path) -> None:
    for folder in ("cam0", "cam1", "cam0/MOT17-02/gt"):
        (tmp_path / folder).mkdir(parents=True)
    paths = [write(tmp_path / "cam0"), write(tmp_path / "cam1"), write(tmp_path / "cam0/MOT17-02/gt", name="gt.txt")]
    results = read_mot_results(paths, config())
    items = {item.uri.split("/", 1)[1]: item.camera_id for item in results.items()}
    assert items == {"cam0/pond": "cam0", "cam1/pond": "cam1", "cam0/MOT17-02": "cam0"}
    assert (
        results.digest == read_mot_results(paths[::-1], config()).digest != read_mot_results(paths[1:], config()).digest
    )
    with pytest.raises(DataError, match="another file tells of the medium pond"):
        read_mot_results([write(tmp_path), write(tmp_path, name="pond_gt.txt")], config())


def test_time_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--detect\.mot-fps"):
        read_mot_results([write(tmp_path)], DetectConfig())


@pytest.mark.usefixtures("ray_connected")
def test_detect_takes_it_and_its_digest_covers_every_setting(tmp_path: Path) -> None:
    path = write(tmp_path)
    save_colours(tmp_path)
    store = Store.open(tmp_path / "s", create=True)

    def detected(**values: object) -> str:
        settings = {f"detect.{name}": value for name, value in {"mot_fps": 10, "mot_missed": 0, **values}.items()}
        return detect(Config.load(None, settings), store, [str(path)]).digest

    digest = detected()
    collection = store.collection("detections", digest)
    rows = collection.read("detections", DETECTIONS).sort_by([("frame_index", "ascending")]).to_pylist()
    assert [(row["frame_index"], row["camera_id"], row["width_px"]) for row in rows] == [
        (0, "pond", 640), (0, "pond", 640), (1, "pond", 640),
    ]  # fmt: skip
    assert [row["colour"] is None for row in rows].count(True) == 1
    assert set(rows[2]["colour"]) == {8}
    assert all(row["crop_pack"] is None for row in rows)
    assert collection.read("frames", FRAMES).num_rows == 2
    assert collection.read("media", MEDIA)["num_frames"].to_pylist() == [2]
    changed = [
        {"mot_fps": 25}, {"mot_every": 2}, {"mot_jitter": 0.1}, {"mot_missed": 0.2}, {"mot_false_boxes": 1},
        {"mot_seed": 1}, {"frame_size": "700x400"},
    ]  # fmt: skip
    digests = {digest, *(detected(**values) for values in changed)}
    assert len(digests) == 1 + len(changed)
