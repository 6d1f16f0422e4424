"""Files of a repository on the Hugging Face Hub: fetched once, checked by their digests, kept in the cache directory.

huggingface_hub fetches them: it goes on with a broken download, and reads `HF_HUB_OFFLINE`, `HF_ENDPOINT` and the
user's token. Of weights, safetensors files alone are read, and code of a repository never is.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.api.contracts import Provenance
from toolkit.api.errors import WeightsError, setting
from toolkit.api.extras import require
from toolkit.api.files import read_regular
from toolkit.transfer.licences import UNKNOWN
from toolkit.transfer.published import UnreachableError, weights_directory

if TYPE_CHECKING:
    from toolkit.transfer.names import Weights

NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""Of a repository: `organisation/name`."""
MAIN = "main"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_CARD = "README.md"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGESTS = {64: "sha256", 40: "git"}


@dataclass(frozen=True)
class Repository:
    """A repository of a model at one revision, as `Pretrained` weights that a recipe calls `pretrained`."""

    name: str
    """`organisation/name`."""
    revision: str = MAIN
    """A branch, a tag, or a commit of 40 hex digits, which alone always means the same files."""
    timeout: float = 10.0
    """Longest wait for the server to answer, in seconds."""
    key: str = "model.weights"
    """The recipe's key that names the repository, for messages."""
    extra: str = "transformers"
    """An extra that installs huggingface_hub, for messages."""
    word: str = "pretrained"
    files: tuple[str, ...] = WEIGHTS
    """Names that the weights may have: the first that is there counts."""
    known_licence: str | None = None
    """Where a plugin knows it; None: the model card says it."""

    @property
    def title(self) -> str:
        return f"weights {self}"

    def __str__(self) -> str:
        return self.name if self.revision == MAIN else f"{self.name}@{self.revision}"

    @classmethod
    def named(cls, text: str, **others: Any) -> Repository:
        """That of `organisation/name` or `organisation/name@revision`. Raises WeightsError for another text."""
        name, _, revision = text.partition("@")
        if not NAME.fullmatch(name):
            raise WeightsError(
                f'"{text}": expected organisation/name or organisation/name@revision of the Hugging Face Hub',
                next_step="write it as in hub:facebook/dinov2-small",
            )
        return cls(name, revision or MAIN, **others)

    @cached_property
    def licence(self) -> str:
        """What is known, else what its model card says, `unknown` if it says nothing. Raises as `file` does."""
        if self.known_licence:
            return self.known_licence
        try:
            front = _front_matter(read_regular(self.file(_CARD)).decode(errors="replace"))
        except AbsentError:
            return UNKNOWN
        said = front.get("license")
        if said == "other":
            said = front.get("license_name") or said
        return said.lower() if isinstance(said, str) and said else UNKNOWN

    @cached_property
    def pinned(self) -> Repository:
        """The same at the commit that the revision means now. Raises as `file` does."""
        for name in (_CARD, "config.json", *self.files):
            try:
                return replace(self, revision=self.file(name).parent.name)
            except AbsentError:
                continue
        raise self._without_weights()

    @property
    def provenance(self) -> Provenance:
        """With the commit that the revision means now. Raises as `file` does."""
        return Provenance(self.title, self.address, self.licence, self.pinned.revision)

    @property
    def address(self) -> str:
        """What a person opens to read the card."""
        return f"https://huggingface.co/{self.name}"

    def fetch(self, timeout: float) -> Weights:
        """Its safetensors weights. Raises as `file` does, and WeightsError for a damaged file."""
        from toolkit.transfer.files import read_weights

        there = replace(self.pinned, timeout=timeout)
        name = there._weights_file
        if name.endswith(".json"):
            listed = read_json(there.file(name)).get("weight_map")
            for part in sorted({*listed.values()} if isinstance(listed, dict) else ()):
                if not isinstance(part, str) or part != Path(part).name or not part.endswith(".safetensors"):
                    raise WeightsError(f"{self}: expected names of safetensors files in {name}, got {part!r}")
                there.file(part)
        return read_weights(there.file(name))

    @property
    def _weights_file(self) -> str:
        for name in self.files:
            try:
                self.file(name)
            except AbsentError:
                continue
            return name
        raise self._without_weights()

    def _without_weights(self) -> WeightsError:
        return WeightsError(
            f"{self}: has no {self.files[0]}, and weights in other formats are not read: they may run code",
            next_step=f"name another repository, or {setting('model.weights', 'none')} for random weights",
        )

    def file(self, name: str) -> Path:
        """The file `name` of the repository: from the cache, else downloaded into it; its digest is compared each time.

        Raises:
            AbsentError: the repository has no such file.
            UnreachableError: not on this machine, and the server does not send it.
            WeightsError: there is no such repository or revision, its publisher wants terms to be accepted, the file
                does not match its digest, or there is no room for it.
        """
        hub = require("huggingface_hub", extra=self.extra, user=f"the model {self.name}")
        place = {"repo_id": self.name, "filename": name, "cache_dir": weights_directory() / "hub"}
        with self._faults(name):
            try:
                # The client asks this itself, and again for half a minute where there is no network.
                url = hub.hf_hub_url(self.name, name, revision=self.revision)
                hub.get_hf_file_metadata(url, timeout=self.timeout)
            except Exception:
                path = hub.try_to_load_from_cache(**place, revision=self.revision)
                if not isinstance(path, str):
                    raise
            else:
                path = hub.hf_hub_download(**place, revision=self.revision, etag_timeout=self.timeout)
        self._compare(Path(path))
        return Path(path)

    def _compare(self, path: Path) -> None:
        """The Hub's digest of a file is the name of the blob that the cache keeps it in."""
        blob = path.resolve()
        if not re.fullmatch(r"[0-9a-f]+", blob.name) or len(blob.name) not in _DIGESTS:
            raise WeightsError(
                f"{self}: the server gives no checksum of {path.name}", next_step="use a server that gives checksums"
            )
        if (digest := _digest(blob, _DIGESTS[len(blob.name)])) != blob.name:
            path.unlink()
            blob.unlink(missing_ok=True)
            raise WeightsError(
                f'{self}: {path.name} is damaged: its checksum is "{digest}", not "{blob.name}"',
                next_step="run the same command again: the damaged file was deleted",
            )

    @contextmanager
    def _faults(self, name: str) -> Iterator[None]:
        """What huggingface_hub raises, as errors of the toolkit."""
        from huggingface_hub import errors

        known = f"{self.address}/tree/main"
        terms = f"accept the terms at {self.address}, log in with `hf auth login`, and run the same command again"
        try:
            yield
        except errors.GatedRepoError as error:
            raise WeightsError(f"{self}: its publisher requires you to accept terms first", next_step=terms) from error
        except errors.RevisionNotFoundError as error:
            raise WeightsError(
                f'{self.name} has no revision "{self.revision}"', next_step=f"name one of those at {known}"
            ) from error
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            raise WeightsError(
                f"{self.name}: no such repository on the Hugging Face Hub, or a private one",
                next_step=f"check the name in {self.key}; for a private one, log in with `hf auth login`",
            ) from error
        except errors.RemoteEntryNotFoundError as error:
            raise AbsentError(f"{self}: has no file {name}") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise WeightsError(
                    f"{weights_directory()}: no space left for {name} of {self}",
                    next_step="free disk space, or set TOOLKIT_CACHE to a folder on another disk",
                ) from error
            raise self._unreachable(name, error) from error
        except Exception as error:  # its HTTP client has errors of its own, which differ between versions
            raise self._unreachable(name, error) from error

    def _unreachable(self, name: str, error: Exception) -> UnreachableError:
        from huggingface_hub import constants

        command = f"hf download {shlex.quote(self.name)} --local-dir FOLDER"
        by_hand = f"run `{command}` on a machine with network, then here: {setting(self.key, 'FOLDER')}"
        if constants.is_offline_mode():
            return UnreachableError(
                f"{self}: {name} is not in the cache, and HF_HUB_OFFLINE forbids downloads",
                next_step=f"unset HF_HUB_OFFLINE; or {by_hand}",
            )
        cause = error.__cause__ or error
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        return UnreachableError(f"{self}: {name} cannot be downloaded: {reason}", next_step=f"try again; or {by_hand}")


class AbsentError(WeightsError):
    """The repository has no such file."""


def read_json(path: Path) -> dict[str, Any]:
    """The table in a JSON file. Raises WeightsError for anything else."""
    try:
        found = json.loads(read_regular(path))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON: {error}", next_step="fetch or write it again") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: expected a table", next_step="fetch or write it again")
    return found


def is_commit(revision: str) -> bool:
    """Whether `revision` names one commit for good."""
    return bool(_COMMIT.fullmatch(revision))


def _front_matter(card: str) -> dict[str, Any]:
    """The YAML between the two lines of dashes with which a model card begins."""
    import yaml

    found = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", card, flags=re.DOTALL)
    try:
        front = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return {}
    return front if isinstance(front, dict) else {}


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        if kind == "sha256":
            return hashlib.file_digest(file, "sha256").hexdigest()
        made = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while piece := file.read(1 << 20):
            made.update(piece)
        return made.hexdigest()
