"""Print the bill of materials (CycloneDX 1.6) of a wheel: what it is, and what is installed with it.

A wheel holds no code of others, so the versions of its dependencies are the ranges of pyproject.toml.
`python .ci/sbom.py > sbom.cdx.json` after each change of these; a test compares the two.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from uuid import UUID

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def materials() -> str:
    """The bill as JSON, the same each time for the same pyproject.toml and version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bill = Bom(serial_number=UUID(int=0))
    own = _component(project["name"], version=_version(), licence=project["license"])
    bill.metadata.component = own
    extras = {text: extra for extra, texts in project["optional-dependencies"].items() for text in texts}
    required = dict.fromkeys(project["dependencies"], "") | {
        text: extra for text, extra in extras.items() if extra != "test" and not text.startswith(project["name"])
    }
    parts = [_dependency(Requirement(text), extra) for text, extra in required.items()]
    for part in parts:
        bill.components.add(part)
    bill.register_dependency(own, parts)
    written = json.loads(JsonV1Dot6(bill).output_as_string())
    del written["serialNumber"], written["metadata"]["timestamp"]  # of one build; the bill is of all builds
    return json.dumps(written, indent=2, sort_keys=True) + "\n"


def _version() -> str:
    lines = (ROOT / "toolkit" / "__init__.py").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith("__version__"))
    return line.partition('"')[2].rstrip('"')


def _component(name: str, *, version: str | None = None, licence: str | None = None) -> Component:
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=name,
        purl=PackageURL("pypi", name=name.lower().replace("_", "-"), version=version),
        licenses=[DisjunctiveLicense(id=licence)] if licence else None,
    )


def _dependency(requirement: Requirement, extra: str) -> Component:
    part = _component(requirement.name)
    part.properties.add(Property(name="range", value=",".join(sorted(map(str, requirement.specifier)))))
    if requirement.marker:
        part.properties.add(Property(name="marker", value=str(requirement.marker)))
    if extra:
        part.properties.add(Property(name="extra", value=extra))
    return part


if __name__ == "__main__":
    print(materials(), end="")
