import pytest
import yaml

from wildray.config import Config, field_names
from wildray.errors import ConfigError
from wildray.units import Duration, Interval


def test_yaml_round_trip_keeps_every_field():
    config = Config.load(None, {"mine.min-iou": "0.3", "mine.interval": "120frames", "eval.exclude": ["camera_id"]})
    assert Config.validated(yaml.safe_load(config.to_yaml())) == config


def test_options_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("mine: {min_iou: 0.4, min_score: 0.3}\n")
    config = Config.load(path, {"mine.min_iou": 0.5}, preset="paper")
    assert (config.mine.min_iou, config.mine.min_score, config.mine.linker) == (0.5, 0.3, "direct")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("mine.min_iuo", "0.3", "mine.min_iou"),
        ("mien.min_iou", "0.3", "mine"),
        ("mine.min_iou", "3", "less than or equal to 1"),
        ("mine.interval", "5", "120frames"),
        ("mine.interval", "1.5frames", "whole number"),
        ("detect.base_interval", "2frames", "0.5s"),
        ("detect.frame_size", "huge", "1920x1080"),
        ("mine.linker", "asigned", "assigned"),
    ],
)
def test_a_wrong_name_or_value_is_answered_with_the_right_one(name, value, expected):
    with pytest.raises(ConfigError) as caught:
        Config.load(None, {name: value})
    assert expected in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n", "mine: 3\n", "a: [", "\x00"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        Config.load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.load(tmp_path / "missing.yaml")


def test_digest_follows_the_settings_and_nothing_else():
    base = Config()
    assert base.mine.digest() == Config.load(None, {"mine.interval": "2000ms"}).mine.digest()
    assert base.mine.digest() != Config.load(None, {"mine.interval": "3s"}).mine.digest()
    assert base.mine.digest() != base.mine.digest(extra={"chunks": 1})
    other = Config.load(None, {"mine.min_score": "0.9"})
    assert base.mine.digest(exclude={"min_score"}) == other.mine.digest(exclude={"min_score"})


def test_every_field_is_documented():
    for name, model, field in field_names():
        text = model.model_fields[field].description
        assert text, f"{name} has no line that says what it is"
        assert text.endswith("."), f"{name}: {text}"


def test_units_spell_one_value_one_way():
    assert Duration("2min") == Duration("120s") == "120s"
    assert Duration("500ms").seconds == 0.5
    assert Interval("1 capture") == "1captures"
    assert (Interval("120frames").value, Interval("120frames").unit) == (120, "frames")
    assert (Interval("2min").value, Interval("2min").unit) == (120, "s")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/name:os.system", "!evil"])
def test_tags_in_yaml_make_nothing(tmp_path, tag):
    (tmp_path / "c.yaml").write_text(f"mine: {tag} ['{tmp_path / 'made'}']\n")
    with pytest.raises(ConfigError, match="is not YAML: could not determine a constructor"):
        Config.load(tmp_path / "c.yaml")
    assert not (tmp_path / "made").exists()
