"""What every section of the configuration is: frozen, without unknown fields, with a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, arbitrary_types_allowed=True
    )

    def digest(self, *, extra: Mapping[str, object] | None = None, exclude: set[str] | None = None) -> str:
        """16 hex digits that are equal where, and only where, the settings (and ``extra``) are.

        Args:
            extra: Further facts the result depends on, such as the sha256 of weights.
            exclude: Fields on which the result does not depend.
        """
        content = {"settings": self.model_dump(mode="json", exclude=exclude or set()), "extra": dict(extra or {})}
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()
