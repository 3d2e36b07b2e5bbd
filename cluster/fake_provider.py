"""Ray's provider of fake nodes, with a folder for each: what the autoscaler of ``local.py`` starts and ends nodes by.

In Ray's own (2.60) they share the head's, where the first job on a new node unpacks its code over that which others run
from. This can go when ``FakeMultiNodeProvider`` lets each node have a ``temp_dir``.
"""

from __future__ import annotations

import functools
from typing import Any
from unittest import mock

import ray._private.parameter
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class FolderedProvider(FakeMultiNodeProvider):  # type: ignore[misc]
    """Starts every node below ``folder`` of the provider's settings."""

    def _create_node_with_resources_and_labels(self, *arguments: Any) -> None:
        folder = f"{self.provider_config['folder']}/fake{self._next_node_id + 1}"
        made = functools.partial(ray._private.parameter.RayParams, temp_dir=folder)
        with mock.patch.object(ray._private.parameter, "RayParams", made):  # the method takes no folder
            super()._create_node_with_resources_and_labels(*arguments)
