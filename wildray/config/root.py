"""The root of the configuration: reading, laying one over another, naming what is unknown, presets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import ValidationError

from wildray.config.footage import DetectConfig, MineConfig, SimulateConfig
from wildray.config.learning import AugmentConfig, BackboneConfig, MethodConfig, TrainConfig
from wildray.config.running import AuditConfig, EvalConfig, ScaleConfig, TrackingConfig
from wildray.config.section import Section
from wildray.errors import ConfigError, nearest


class Config(Section):
    """The whole configuration."""

    simulate: SimulateConfig = SimulateConfig()
    detect: DetectConfig = DetectConfig()
    mine: MineConfig = MineConfig()
    backbone: BackboneConfig = BackboneConfig()
    augment: AugmentConfig = AugmentConfig()
    method: MethodConfig = MethodConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    audit: AuditConfig = AuditConfig()
    scale: ScaleConfig = ScaleConfig()
    tracking: TrackingConfig = TrackingConfig()

    @classmethod
    def load(
        cls, path: str | Path | None = None, overrides: Mapping[str, object] | None = None, *, preset: str | None = None
    ) -> Self:
        """Read a YAML file, lay dotted overrides over it, validate.

        Args:
            path: YAML file of sections, or None for the defaults.
            overrides: Dotted names (``mine.min_iou``; hyphens are taken as underscores) to values, as text or typed.
            preset: One of ``PRESETS``, laid under the file.

        Raises:
            ConfigError: The file is no YAML mapping, a name is unknown (the nearest is named), a value is out of range.
        """
        content: dict[str, Any] = {}
        if preset is not None:
            if preset not in PRESETS:
                raise ConfigError(f"No preset is called {preset!r}. {nearest(preset, PRESETS)}")
            _merge(content, PRESETS[preset])
        if path is not None:
            _merge(content, read_mapping(Path(path), what="configuration", expected="sections such as 'mine:'"))
        for name, value in (overrides or {}).items():
            section, _, field = name.replace("-", "_").partition(".")
            _merge(content, {section: {field: value}} if field else {section: value})
        return cls.validated(content)

    @classmethod
    def validated(cls, content: Mapping[str, Any]) -> Self:
        """The configuration of nested plain values; raises ConfigError as ``load`` does."""
        _check_names(content)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            lines = []
            for detail in error.errors():
                name = ".".join(str(part) for part in detail["loc"])
                reason = detail["msg"].removeprefix("Value error, ")
                lines.append(
                    f"{name}: {reason}" if reason.startswith("got") else f"{name}: got {detail['input']!r}: {reason}"
                )
            raise ConfigError("The configuration does not hold:\n  " + "\n  ".join(lines)) from None

    def to_yaml(self) -> str:
        """YAML that ``load`` reads back."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        return text


PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # arXiv 2507.02403 as far as it is known: confidence 0.5, IoU 0.2, "120+ seconds", every overlap, 100 epochs
    "paper": {
        "mine": {"min_score": 0.5, "min_iou": 0.2, "interval": "120s", "linker": "direct"},
        "backbone": {"name": "vit_tiny_patch16_224", "image_size": 224},
        "train": {"epochs": 100},
    },
    # what two CPU cores learn from in minutes: a small convolutional network on small images of near frames
    "demo": {
        "simulate": {"num_videos": 36},
        "detect": {"detector": "motion", "chunk": "60s"},
        "mine": {"interval": "0.5s"},
        "backbone": {"name": "resnet18", "image_size": 64},
        "train": {"epochs": 28, "batch_size": 64, "probe_every": 4},
        "eval": {"exclude": ["encounter", "camera_id"], "same": ["orientation"]},
    },
}


def field_names() -> Iterator[tuple[str, type[Section], str]]:
    """Every field as (dotted name, section class, field name), in order."""
    for section, info in Config.model_fields.items():
        model = info.annotation
        assert isinstance(model, type)
        assert issubclass(model, Section)
        for field in model.model_fields:
            yield f"{section}.{field}", model, field


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def read_mapping(path: Path, *, what: str, expected: str) -> dict[str, Any]:
    """The mapping that a YAML file holds; an empty file holds an empty one.

    Args:
        path: The file.
        what: What the file is called in messages.
        expected: What it should hold.

    Raises:
        ConfigError: It cannot be read, is no YAML, or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"The {what} {path} cannot be read: {error.strerror}. Give the path of a YAML file."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The {what} {path} is not YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"The {what} {path} holds a {type(content).__name__}, expected {expected}.")
    return content


def _check_names(content: Mapping[str, Any]) -> None:
    known = {name for name, _, _ in field_names()}
    for section, fields in content.items():
        if section not in Config.model_fields:
            raise ConfigError(
                f"No configuration section is called {section!r}. {nearest(section, Config.model_fields)}"
            )
        if not isinstance(fields, Mapping):
            expected = ", ".join(name for name in sorted(known) if name.startswith(f"{section}."))
            raise ConfigError(f"{section}: got {fields!r}, expected fields: {expected}")
        for field in fields:
            if f"{section}.{field}" not in known:
                raise ConfigError(f"No setting is called '{section}.{field}'. {nearest(f'{section}.{field}', known)}")
