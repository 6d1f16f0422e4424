"""Signed bundles: a changed byte, a swapped file, another key, all are refused, and nothing needs a network."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests import toy_bundle
from toolkit.api.errors import BundleError, UsageError
from toolkit.cli.main import main
from toolkit.serving.bundle import Bundle
from toolkit.serving.bundle.signature import SIGNATURE, _reason, check_key, check_signature, sign


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*words: Any) -> None:
        raise AssertionError(f"a connection to {words}")

    monkeypatch.setattr(socket.socket, "connect", refused)


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A private and a public key."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    made = ec.generate_private_key(ec.SECP256R1())
    private.write_bytes(
        made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        made.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """A signed bundle, and the public key."""
    private, public = keys(tmp_path, "own")
    bundle = toy_bundle.write(tmp_path / "toy")
    sign(bundle, private)
    return bundle, public


def test_a_signed_bundle_is_verified_wherever_it_lies(signed: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, public = signed
    check_signature(bundle, public)
    moved = shutil.copytree(bundle, tmp_path / "elsewhere" / "other")
    check_signature(moved, public)
    assert Bundle.load(moved, device="cpu", signed_by=public).manifest.name == "toy"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def swap(bundle: Path) -> None:
    """Another bundle, valid in itself, under the old signature."""
    other = toy_bundle.write(bundle.with_name("swapped"), classes=("a", "b", "c"), name="toy")
    for path in other.iterdir():
        shutil.copy(path, bundle / path.name)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of the model": (lambda bundle: flip(bundle / "model.onnx"), "model.onnx has changed"),
    "a byte of the manifest": (lambda bundle: flip(bundle / "bundle.json"), "bundle.json has changed"),
    "a byte of the card": (lambda bundle: flip(bundle / "README.md"), "README.md has changed"),
    "a byte of the signature": (lambda bundle: flip(bundle / SIGNATURE), ""),
    "all files": (swap, "has changed"),
    "a file more": (lambda bundle: (bundle / "new.txt").write_text("x"), "new.txt was added"),
    "a file less": (lambda bundle: (bundle / "README.md").unlink(), "README.md is missing"),
    "a link": (lambda bundle: (bundle / "link").symlink_to("/etc/passwd"), "link is a link"),
    "no signature": (lambda bundle: (bundle / SIGNATURE).unlink(), f"not signed (it has no {SIGNATURE})"),
    "an empty signature": (lambda bundle: (bundle / SIGNATURE).write_text("{}"), f"{SIGNATURE} is damaged"),
    "a signature elsewhere": (
        lambda bundle: (bundle / SIGNATURE).rename(bundle.parent / "s") and (bundle / SIGNATURE).symlink_to("../s"),
        "not signed",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_changed_is_refused(change: str, signed: tuple[Path, Path]) -> None:
    bundle, public = signed
    make, says = CHANGES[change]
    make(bundle)
    with pytest.raises(BundleError) as refused:
        Bundle.load(bundle, device="cpu", signed_by=public)
    assert says in refused.value.message
    assert refused.value.next_step


def test_another_key_is_refused(signed: tuple[Path, Path], tmp_path: Path) -> None:
    _, other = keys(tmp_path, "other")
    with pytest.raises(BundleError, match="it is signed by another key"):
        check_signature(signed[0], other)


def test_a_signature_of_another_key_does_not_pass_for_it(signed: tuple[Path, Path], tmp_path: Path) -> None:
    """An attacker signs the changed bundle with an own key."""
    bundle, public = signed
    private, _ = keys(tmp_path, "attacker")
    flip(bundle / "README.md")
    (bundle / SIGNATURE).unlink()
    sign(bundle, private)
    with pytest.raises(BundleError, match="it is signed by another key"):
        check_signature(bundle, public)


def test_a_key_that_cannot_be_used_is_named_with_what_makes_one(signed: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, public = signed
    with pytest.raises(UsageError, match=r"no.pem: No such file or directory") as refused:
        check_key(tmp_path / "no.pem")
    assert refused.value.next_step == (
        f"make one: openssl ecparam -name prime256v1 -genkey -noout -out {tmp_path / 'no.pem'}"
    )
    with pytest.raises(UsageError, match=r"own.pub: not an EC key in PEM form"):
        check_key(public)
    with pytest.raises(UsageError, match=r"no.pub: No such file or directory") as refused:
        check_signature(bundle, tmp_path / "no.pub")
    assert refused.value.next_step == f"make one: openssl ec -in PRIVATE -pubout -out {tmp_path / 'no.pub'}"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_commands_that_make_keys_work(tmp_path: Path) -> None:
    private, public = tmp_path / "a.pem", tmp_path / "a.pub"
    with pytest.raises(UsageError) as refused:
        check_key(private)
    subprocess.run(str(refused.value.next_step).removeprefix("make one: "), shell=True, check=True)
    bundle = toy_bundle.write(tmp_path / "toy")
    sign(bundle, private)
    with pytest.raises(UsageError) as refused:
        check_signature(bundle, public)
    make = str(refused.value.next_step).removeprefix("make one: ").replace("PRIVATE", str(private))
    subprocess.run(make, shell=True, check=True, capture_output=True)
    check_signature(bundle, public)


def test_the_commands_refuse_what_is_not_signed(
    signed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, public = signed
    assert main(["verify", str(bundle), "--key", str(public)]) == 0
    said = capsys.readouterr().out
    assert said == f"{bundle}: 3 files as the owner of {public} signed them, exported 2031-02-03T04:05:06+00:00\n"
    flip(bundle / "README.md")
    commands = (
        ["verify", str(bundle), "--key", str(public)],
        ["predict", str(bundle), str(tmp_path), "--require-signature", str(public)],
        ["serve", str(bundle), "--port", "0", "--require-signature", str(public)],
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for words in commands:
        assert main(words) == 3
        assert f"error: {bundle}: not as the owner of {public} signed it: README.md has changed" in (
            capsys.readouterr().err
        )


def test_a_missing_library_is_named(signed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("no", name="model_signing")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(UsageError, match="signatures need model_signing, which is not installed") as refused:
        check_signature(*signed)
    assert refused.value.next_step == "pip install 'vision-toolkit[sign]'"


def test_what_is_wrong_is_read_whatever_a_digest_holds() -> None:
    """Digests are shown as bytes, some of which are quotes."""
    both = str(["Hash mismatch for 'a.txt': Expected 'b\"\\'\"'"])
    assert _reason(ValueError(f"Signature mismatch: {both}")) == "a.txt has changed"
    added = str(["Extra files found in model 'toy': b.txt", 'Hash mismatch: "'])
    assert _reason(ValueError(f"Signature mismatch: {added}")) == "b.txt was added"
