"""The reserve as files: determinism, tables, media that decode, labelled set."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import av
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from wildray.config import Config
from wildray.errors import ConfigError, DataError
from wildray.simulate import SimulateResult, simulate

SMALL = {
    "simulate.num_videos": 6,
    "simulate.num_individuals": 8,
    "simulate.frame_size": "320x180",
    "simulate.clip_length": "2s",
    "simulate.fps": 6,
    "simulate.labelled_individuals": 5,
    "simulate.labelled_images": 1,
    "simulate.labelled_encounters": 2,
    "simulate.empty_share": 0.34,
    "simulate.bursts": 0.17,
    "simulate.timelapses": 0.17,
}


def small(**changes: object) -> Config:
    return Config.load(None, SMALL | {f"simulate.{name}": value for name, value in changes.items()})


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SimulateResult]:
    root = tmp_path_factory.mktemp("world") / "reserve"
    return root, simulate(small(), root, workers=1)


def boxes(root: Path) -> list[dict[str, object]]:
    return pq.read_table(root / "truth" / "boxes.parquet").to_pylist()


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_processes(
    world: tuple[Path, SimulateResult], tmp_path: Path
) -> None:
    simulate(small(), tmp_path / "again", workers=2)
    assert digests(tmp_path / "again") == digests(world[0])


def test_another_seed_gives_other_files(world: tuple[Path, SimulateResult], tmp_path: Path) -> None:
    simulate(small(seed=1, num_videos=1, labelled_individuals=0), tmp_path / "other", workers=1)
    mine = {digest for name, digest in digests(world[0]).items() if name.endswith(".mp4")}
    other = {digest for name, digest in digests(tmp_path / "other").items() if name.endswith(".mp4")}
    assert other
    assert not mine & other


def test_a_folder_of_something_else_is_refused_and_the_same_reserve_is_made_anew(tmp_path: Path) -> None:
    tiny = small(num_videos=1, labelled_individuals=0)
    simulate(tiny, tmp_path / "a", workers=1)
    before = digests(tmp_path / "a")
    video = next((tmp_path / "a" / "media").rglob("*.mp4"))
    video.unlink()
    simulate(tiny, tmp_path / "a", workers=1)
    assert digests(tmp_path / "a") == before
    with pytest.raises(DataError, match="other than a reserve of these settings"):
        simulate(small(num_videos=2), tmp_path / "a", workers=1)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        simulate(tiny, tmp_path / "file", workers=1)


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "from wildray.config import Config\nfrom wildray.simulate import simulate\n"
        f"simulate(Config.load(None, {SMALL | {'simulate.num_videos': 400}!r}), {str(tmp_path / 'x')!r}, workers=2)"
    )
    parent = psutil.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(tmp_path.rglob("*.mp4")):
        time.sleep(0.1)
    assert list(tmp_path.rglob("*.mp4"))
    workers = [child for child in parent.children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    for worker in alive:
        worker.kill()
    assert not alive


def test_insects_without_macro_cameras_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"simulate\.num_cameras"):
        simulate(small(num_cameras=3), tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("size", ["641x360", "100x50", "640", "x", "99999x360"])
def test_impossible_frame_sizes_are_refused(size: str) -> None:
    with pytest.raises(ConfigError, match=r"simulate\.frame_size"):
        small(frame_size=size)


def test_videos_decode_to_the_stated_frames_and_carry_their_time(world: tuple[Path, SimulateResult]) -> None:
    root, result = world
    manifest = list(csv.DictReader((root / "media" / "manifest.csv").open()))
    videos = [row for row in manifest if row["uri"].endswith(".mp4")]
    assert len(videos) == result.num_videos == 6
    total = 0
    for row in videos:
        with av.open(str(root / "media" / row["uri"])) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert (stream.width, stream.height) == (320, 180)
            assert float(stream.average_rate) == 6
            created = container.metadata["creation_time"]
            assert created[:19] == row["captured_at"][:19]
            frames = [frame.time for frame in container.decode(video=0)]
        assert frames == pytest.approx([index / 6 for index in range(12)])
        assert row["uri"].startswith(row["camera_id"] + "/")
        total += len(frames)
    assert total == result.num_frames == 72


def test_stills_carry_their_time(world: tuple[Path, SimulateResult]) -> None:
    root, result = world
    manifest = {row["uri"]: row for row in csv.DictReader((root / "media" / "manifest.csv").open())}
    stills = [uri for uri in manifest if uri.endswith(".jpg")]
    assert len(stills) == result.num_stills == 9
    for uri in stills:
        with Image.open(root / "media" / uri) as image:
            text = image.getexif().get_ifd(0x8769)[0x9003]
            assert image.size == (320, 180)
        assert text.replace(":", "-", 2).replace(" ", "T") == manifest[uri]["captured_at"][:19]


def test_intervals_of_a_second_and_of_a_minute_exist(world: tuple[Path, SimulateResult]) -> None:
    times = defaultdict(list)
    for row in csv.DictReader((world[0] / "media" / "manifest.csv").open()):
        if row["uri"].endswith(".jpg"):
            times[row["camera_id"]].append(np.datetime64(row["captured_at"][:19]))
    gaps = Counter(int(gap) for camera in times.values() for gap in np.diff(sorted(camera)).astype(int))
    assert gaps[1] >= 2
    assert gaps[60] >= 5


def test_mot_files_are_the_animals_of_the_boxes(world: tuple[Path, SimulateResult]) -> None:
    root, _ = world
    of_file = defaultdict(list)
    for row in boxes(root):
        if row["mot_id"]:
            of_file[row["file"]].append(row)
    mot_files = sorted((root / "truth" / "mot").rglob("*.txt"))
    assert len(mot_files) == 6
    for path in mot_files:
        name = str(path.relative_to(root / "truth" / "mot").with_suffix(".mp4"))
        lines = [line.split(",") for line in path.read_text().splitlines()]
        assert all(len(line) == 9 and line[6:] == ["1", "1", "1"] for line in lines)
        got = {(int(line[0]), int(line[1]), *map(float, line[2:6])) for line in lines}
        want = {
            (
                r["frame_index"] + 1,
                r["mot_id"],
                r["x1_px"],
                r["y1_px"],
                r["x2_px"] - r["x1_px"],
                r["y2_px"] - r["y1_px"],
            )
            for r in of_file[name]
        }
        assert got == want


def test_boxes_lie_in_the_frame_and_empty_clips_exist(world: tuple[Path, SimulateResult]) -> None:
    root, result = world
    rows = boxes(root)
    assert result.num_empty >= 2
    assert any(row["mot_id"] for row in rows)
    for row in rows:
        assert 0 <= row["x1_px"] < row["x2_px"] <= 320
        assert 0 <= row["y1_px"] < row["y2_px"] <= 180
        assert 0 < row["visibility"] <= 1
        assert (row["activity"] == "distractor") == (row["mot_id"] == 0) == (row["flank"] is None)
    with_animals = {row["file"] for row in rows if row["mot_id"]}
    empty = [str(p.relative_to(root / "media")) for p in (root / "media").rglob("*.mp4")]
    assert len([name for name in empty if name not in with_animals]) == result.num_empty


def test_detector_results_are_batch_output_1_6(world: tuple[Path, SimulateResult]) -> None:
    root, _ = world
    content = json.loads((root / "truth" / "megadetector.json").read_text())
    assert content["info"]["format_version"] == "1.6"
    assert content["detection_categories"]["1"] == "animal"
    names = {row["uri"] for row in csv.DictReader((root / "media" / "manifest.csv").open())}
    assert {image["file"] for image in content["images"]} == names
    truth = defaultdict(list)
    for row in boxes(root):
        truth[row["file"], row["frame_index"]].append([row[f"{k}_px"] for k in ("x1", "y1", "x2", "y2")])
    for image in content["images"]:
        video = image["file"].endswith(".mp4")
        assert ("frame_rate" in image) == video == ("frames_processed" in image)
        if video:
            assert image["frame_rate"] == 6
            assert image["frames_processed"] == [0, 3, 6, 9]
        for found in image["detections"]:
            assert ("frame_number" in found) == video
            x, y, w, h = found["bbox"]
            assert 0 <= x < x + w <= 1.0001
            assert 0 <= y < y + h <= 1.0001
            assert 0 < found["conf"] <= 1
            box = np.array([x, y, x + w, y + h]) * [320, 180, 320, 180]
            near = [
                np.abs(box - t) / np.maximum(1, [t[2] - t[0], t[3] - t[1]] * 2)
                for t in map(np.array, truth[image["file"], found.get("frame_number", 0)])
            ]
            assert min(offset.max() for offset in near) < 0.25


def test_labelled_animals_are_held_out_and_met_on_several_cameras_from_both_sides(
    world: tuple[Path, SimulateResult],
) -> None:
    root, result = world
    rows = list(csv.DictReader((root / "labelled" / "metadata.csv").open()))
    assert list(rows[0]) == [
        "image_id", "identity", "path", "bbox", "date", "orientation", "species", "camera_id", "encounter",
    ]  # fmt: skip
    assert len(rows) == result.num_labelled == 5 * 2 * 2
    assert len({row["image_id"] for row in rows}) == len(rows)
    assert not {row["identity"] for row in rows} & {row["identity"] for row in boxes(root)}
    for identity in {row["identity"] for row in rows}:
        mine = [row for row in rows if row["identity"] == identity]
        assert len({row["encounter"] for row in mine}) == 2
        assert len({row["camera_id"] for row in mine}) == 2
        for flank in ("left", "right"):
            assert len({row["encounter"] for row in mine if row["orientation"] == flank}) == 2
    for row in rows:
        x, y, w, h = json.loads(row["bbox"])
        with Image.open(root / "labelled" / row["path"]) as image:
            assert image.size == (320, 180)
        assert x >= 0
        assert y >= 0
        assert w > 20
        assert h > 12
        assert x + w <= 320
        assert y + h <= 180
    held_out = {
        row["identity"]
        for row in csv.DictReader((root / "truth" / "individuals.csv").open())
        if row["held_out"] == "true"
    }
    assert held_out == {row["identity"] for row in rows}
