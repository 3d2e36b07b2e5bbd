"""A second round of mining: boxes compared by vectors of a first model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from mining_rows import Clip, box, detections_table, frames_table, make_store, media_table

from wildray.config import MineConfig
from wildray.errors import ConfigError, StageError
from wildray.mining import embedded as module
from wildray.mining.embedded import Vectors, embedded, vectors_used
from wildray.mining.naming import pairs_digest
from wildray.mining.pairs import mine_tables
from wildray.mining.sequences import assign_sequences
from wildray.schema import EMBEDDINGS
from wildray.store import Store

NUM_FRAMES = 30
CHUNK = "000000-aaaaaaaa"
CONFIG = MineConfig.model_validate({"interval": "1s", "link_gap": "1s", "remove_static": False})


def crossing() -> Clip:
    """Two animals that meet and turn back: by overlap alone nobody can say which is which from then on."""
    boxes = []
    for i in range(NUM_FRAMES):
        apart = 9.0 * abs(i - NUM_FRAMES / 2) + 6
        boxes.append([(300 - apart, 100, 360 - apart, 160), (300 + apart, 102, 360 + apart, 162)])
    return Clip("a", boxes)


def vector(animal: int, *, noise: float, rng: np.random.Generator) -> np.ndarray:
    value = np.eye(8)[animal] + rng.normal(0, noise, 8)
    return (value / np.linalg.norm(value)).astype(np.float32)


def add_vectors(
    store: Store,
    clips: Sequence[Clip],
    *,
    name: str = "e0",
    source: str = "detections/d0",
    share: float = 1.0,
    noise: float = 0.05,
    equal: bool = False,
) -> None:
    """Embeddings as embed writes them: a box of a frame shows the animal of its place there."""
    rng = np.random.default_rng(0)
    rows = [
        {"id": str(box(clip, frame, animal)), "vector": vector(0 if equal else animal, noise=noise, rng=rng)}
        for clip in clips
        for frame in range(len(clip.boxes))
        for animal in range(len(clip.boxes[frame]))
    ]
    rows = rows[: round(share * len(rows))]
    collection = store.collection("embeddings", name)
    collection.begin({"source": source, "dim": 8})
    collection.write("embeddings", CHUNK, pa.Table.from_pylist(rows, schema=EMBEDDINGS))
    collection.done(CHUNK, {"num": len(rows)})


def with_vectors(**changes: object) -> MineConfig:
    return MineConfig.model_validate({**CONFIG.model_dump(mode="json"), "embeddings": "e0", **changes})


def right(clip: Clip, pairs: pa.Table) -> tuple[int, int]:
    """Pairs of one animal, and all."""
    animal = {box(clip, frame, number): number for frame in range(NUM_FRAMES) for number in range(2)}
    both = zip(pairs["anchor_id"].to_pylist(), pairs["positive_id"].to_pylist(), strict=True)
    return sum(animal[a] == animal[b] for a, b in both), pairs.num_rows


def test_vectors_tell_apart_what_overlap_does_not(tmp_path: Path) -> None:
    clip = crossing()
    store = make_store(tmp_path, [[clip]])
    add_vectors(store, [clip])
    tables = assign_sequences(media_table([clip]), gap_s=60), frames_table([clip]), detections_table([clip])
    by_overlap = mine_tables(*tables, CONFIG)[1]
    config = with_vectors()
    looks = embedded(config, store.collection("detections", "d0"))
    assert looks is not None
    by_looks = mine_tables(*tables, config, looks.read([CHUNK]))[1]
    assert right(clip, by_looks) == (2 * (NUM_FRAMES - 10), 2 * (NUM_FRAMES - 10))
    assert right(clip, by_overlap)[0] < 2 * (NUM_FRAMES - 10)


def test_the_unit_is_the_usual_distance_of_animals_of_one_frame(tmp_path: Path) -> None:
    clip = crossing()
    store = make_store(tmp_path, [[clip]])
    add_vectors(store, [clip], noise=0.3)
    source = store.collection("detections", "d0")
    looks = embedded(with_vectors(), source)
    assert looks is not None
    vectors = looks.read([CHUNK])
    apart = [
        1 - float(vectors.looks(np.array([box(clip, frame, n)])).values[0] @ other)
        for frame in range(NUM_FRAMES)
        if abs(frame - NUM_FRAMES / 2) >= 3  # nearer they overlap by more than a tenth
        for n, other in [(0, vectors.looks(np.array([box(clip, frame, 1)])).values[0])]
    ]
    assert looks.unit == pytest.approx(float(np.median(apart)), abs=1e-6)
    assert embedded(with_vectors(), source) == looks


def test_boxes_without_a_vector_are_compared_by_nothing() -> None:
    vectors = Vectors(np.array([3, 5]), np.eye(2, dtype=np.float32), 0.5)
    looks = vectors.looks(np.array([5, 4, 9, 3]))
    np.testing.assert_array_equal(looks.values, [[0, 1], [np.nan] * 2, [np.nan] * 2, [1, 0]])
    np.testing.assert_allclose(looks.measure(looks.values[[0, 0, 0]], looks.values[[3, 1, 0]]), [2, np.nan, 0])
    none = Vectors(np.zeros(0, np.int64), np.zeros((0, 2), np.float32), 0.5).looks(np.array([1]))
    assert np.isnan(none.values).all()


def test_what_does_not_serve_is_refused(tmp_path: Path) -> None:
    clip = crossing()
    store = make_store(tmp_path, [[clip]])
    source = store.collection("detections", "d0")
    add_vectors(store, [clip])
    assert embedded(CONFIG, source) is None
    for change, message in (
        ({"embeddings": "e1"}, "Did you mean 'e0'.*--data detections/d0"),
        ({"linker": "direct"}, "mine.linker direct"),
        ({"look_weight": 0}, "mine.look_weight 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            vectors_used(with_vectors(**change), source)
    add_vectors(store, [clip], source="detections/d1")
    with pytest.raises(ConfigError, match="are of detections/d1, and detections/d0 is mined"):
        embedded(with_vectors(), source)
    add_vectors(store, [clip], share=0.4)
    with pytest.raises(StageError, match="40% of the boxes have a vector in e0, expected 50%"):
        embedded(with_vectors(), source)
    add_vectors(store, [clip], equal=True, noise=0.0)
    with pytest.raises(StageError, match="tells nothing apart"):
        embedded(with_vectors(), source)


def test_footage_of_animals_that_are_alone_gives_no_unit(tmp_path: Path) -> None:
    clip = Clip("a", [[(10.0 * i, 10, 10.0 * i + 40, 50)] for i in range(NUM_FRAMES)])
    store = make_store(tmp_path, [[clip]])
    add_vectors(store, [clip])
    with pytest.raises(StageError, match=f"0 boxes have a neighbour in their frame, expected {module.MIN_NEIGHBOURS}"):
        embedded(with_vectors(), store.collection("detections", "d0"))


def test_a_set_is_named_after_its_vectors_and_older_sets_keep_their_names() -> None:
    finished = {CHUNK: {"num_detections": 5}}
    plain = pairs_digest(CONFIG, "d0", finished)
    assert plain == pairs_digest(CONFIG, "d0", finished, {})
    names = [
        plain,
        pairs_digest(with_vectors(), "d0", finished, {CHUNK: 4}),
        pairs_digest(with_vectors(), "d0", finished, {CHUNK: 5}),
        pairs_digest(with_vectors(embeddings="e1"), "d0", finished, {CHUNK: 5}),
    ]
    assert len(set(names)) == len(names)
