"""The configuration: one frozen root, a section per stage, one dotted name for every field.

In: YAML files and dotted overrides (``mine.min_iou=0.3``). Out: validated frozen models with a digest. The file, the
command line and a sweep's search space all use the same dotted names; the command line takes hyphens too. Unknown
names fail with the nearest known one. Every field says its meaning, unit and range in the line under it, which is
what ``--help`` prints. The alternative, argparse flags passed around as a dict, has neither ranges nor a digest.
"""

from wildray.config.footage import DetectConfig, MineConfig, SimulateConfig
from wildray.config.learning import AugmentConfig, BackboneConfig, MethodConfig, TrainConfig
from wildray.config.root import PRESETS, Config, field_names, read_mapping
from wildray.config.running import AuditConfig, EvalConfig, ScaleConfig, TrackingConfig
from wildray.config.section import Section

__all__ = [
    "PRESETS",
    "AuditConfig",
    "AugmentConfig",
    "BackboneConfig",
    "Config",
    "DetectConfig",
    "EvalConfig",
    "MethodConfig",
    "MineConfig",
    "ScaleConfig",
    "Section",
    "SimulateConfig",
    "TrackingConfig",
    "TrainConfig",
    "field_names",
    "read_mapping",
]
