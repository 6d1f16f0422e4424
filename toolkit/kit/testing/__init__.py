"""The conformance kit: whether a component keeps its contract, asked in a test, by `plugins doctor` or by hand.

    from toolkit.kit.testing import Case, conformance

    test_components = conformance(Case("model", "acme-vision:patches", {"width": 8}))

Nothing heavy is imported before a component is examined. Rules and contracts are described in docs/reference/rules.md.
"""

from __future__ import annotations

from toolkit.kit.testing.case import Case
from toolkit.kit.testing.examination import conformance, examine, rules
from toolkit.kit.testing.rulebook import Finding, Rule
from toolkit.kit.testing.samples import draws, image_folders, video_folders

__all__ = ["Case", "Finding", "Rule", "conformance", "draws", "examine", "image_folders", "rules", "video_folders"]
