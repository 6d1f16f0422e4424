"""Who a bundle is from: a signature over all its files, by OpenSSF model-signing with a key of one's own, offline.

https://github.com/sigstore/model-transparency, whose own command verifies it as well.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from toolkit.api.errors import BundleError, UsageError, printable
from toolkit.serving.bundle.manifest import MANIFEST

SIGNATURE = "bundle.sig"
EXTRA = "sign"
_LARGEST = 16 << 20
"""Bytes of a signature, which names every file."""


def sign(bundle: Path, key: Path) -> None:
    """Sign all files of the bundle at `bundle` with a private key in PEM form (EC), whose signature becomes one of its
    files. Raises UsageError for a key that cannot be used."""
    signing = _library("signing")
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(_hashing(bundle))
        config.sign(bundle, bundle / SIGNATURE)
    except (OSError, ValueError, TypeError) as error:
        raise unusable(
            key, error, make=f"openssl ecparam -name prime256v1 -genkey -noout -out {_quoted(key)}"
        ) from error


def check_key(key: Path) -> None:
    """Raise UsageError unless `key` can sign, without signing anything that lasts."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        (Path(folder) / MANIFEST).write_text("{}", encoding="utf-8")
        sign(Path(folder), key)


def check_signature(bundle: Path, key: Path) -> None:
    """Raise BundleError unless the owner of the public key in `key` (PEM) has signed all files of a bundle as they are
    now, UsageError for a key that cannot be used."""
    verifying = _library("verifying")
    signature = bundle / SIGNATURE
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (OSError, ValueError, TypeError) as error:
        make = f"openssl ec -in PRIVATE -pubout -out {_quoted(key)}"
        raise unusable(key, error, make=make) from error
    if not signature.is_file() or signature.is_symlink() or signature.stat().st_size > _LARGEST:
        raise BundleError(
            f"{bundle}: not signed (it has no {SIGNATURE})",
            next_step="ask for a signed bundle: its sender makes it with python -m toolkit export RUN --sign KEY",
        )
    try:
        config.set_hashing_config(_hashing(bundle)).verify(bundle, signature)
    except Exception as error:  # whatever is wrong with what a stranger sends, it is not verified
        raise BundleError(
            f"{bundle}: not as the owner of {key} signed it: {_reason(error)}",
            next_step="do not use it; ask its sender for another copy, or for the right key",
        ) from error


def unusable(key: Path, error: Exception, *, make: str) -> UsageError:
    """What is wrong with a file of a key, and the command that makes one."""
    reason = error.strerror if isinstance(error, OSError) else "not an EC key in PEM form"
    return UsageError(f"{key}: {reason}", next_step=f"make one: {make}")


def _reason(error: Exception) -> str:
    """What model-signing says, in our words; the names are those of files in the bundle."""
    said = str(error).replace("\\'", "'")  # it shows lists of texts, whose quotes it escapes if a digest has one
    for shape, reason in _REASONS.items():
        if found := re.search(shape, said):
            return reason.format(*map(printable, found.groups()))
    return f"{SIGNATURE} is damaged"


_REASONS = {
    r"Hash mismatch for '([^']*)'": "{} has changed",
    r"Extra files found in model '[^']*': (.*?)[\]\"']": "{} was added",
    r"Missing files in model '[^']*': (.*?)[\]\"']": "{} is missing",
    r"Cannot use '([^']*)' because it is a symlink": "{} is a link",
    r"public key hash": "it is signed by another key",
    r"(?i)invalid ?signature|signature verification failed": "the signature does not match",
}


def _hashing(bundle: Path) -> Any:
    """All files but the signature itself; a link is refused."""
    return _library("hashing").Config().set_ignored_paths(paths=[bundle / SIGNATURE], ignore_git_paths=False)


def _library(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"model_signing.{name}")
    except ImportError as error:
        raise UsageError(
            f"signatures need {error.name}, which is not installed", next_step=f"pip install 'vision-toolkit[{EXTRA}]'"
        ) from error


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
