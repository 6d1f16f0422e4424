"""Plugins disabled in a project: by its file or by the environment."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.installed import install
from toolkit.api.errors import EXIT_DONE, EXIT_USAGE, ProjectError
from toolkit.cli.main import main
from toolkit.host.project import FILE, _with_table, disable, disabled_here, disabled_names

HOOK = "from toolkit import hookimpl\n@hookimpl\ndef toolkit_models(): return {'den': dict}\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory where acme-den, with two entry points, is installed with this project's own plugins."""
    site = tmp_path / "site"
    site.mkdir()
    install(site, "Acme.Den", {"acme_den": HOOK, "acme_other": HOOK}, {"main": "acme_den", "other": "acme_other"})
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOOLKIT_DISABLE", raising=False)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    return [*captured.out.splitlines(), *captured.err.splitlines()]


def test_a_byte_order_mark_is_passed_over() -> None:
    Path(FILE).write_bytes(b'\xef\xbb\xbf[plugins]\ndisable = ["acme-den"]\n')
    assert disabled_here() == ["acme-den"]
    disable([])
    assert not Path(FILE).exists()


def test_a_plugin_is_disabled_unread_and_enabled_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "disable", "acme_den[main]"]) == EXIT_DONE
    assert printed(capsys) == ["acme-den[main] is disabled in toolkit.toml"]
    assert tomllib.loads(Path(FILE).read_text()) == {"plugins": {"disable": ["acme-den[main]"]}}
    assert main(["plugins", "list"]) == EXIT_DONE
    assert printed(capsys)[-2:] == ["disabled plugins", "  acme-den[main] 1.0: by toolkit.toml"]
    assert "acme_den" not in sys.modules
    assert main(["plugins", "disable", "acme-den[main]"]) == EXIT_DONE
    assert printed(capsys) == ["acme-den[main] was already disabled in toolkit.toml"]
    assert main(["plugins", "enable", "Acme.Den[main]"]) == EXIT_DONE
    assert printed(capsys) == ["acme-den[main] is enabled in toolkit.toml"]
    assert not Path(FILE).exists()
    assert main(["plugins", "enable", "acme-den[main]"]) == EXIT_DONE
    assert printed(capsys) == ["acme-den[main] was not disabled"]


def test_enabling_a_distribution_enables_its_entry_points(capsys: pytest.CaptureFixture[str]) -> None:
    Path(FILE).write_text('[plugins]\ndisable = ["Acme_Den[main]", "acme-den", "gone"]\n')
    assert main(["plugins", "enable", "acme-den"]) == EXIT_DONE
    assert disabled_here() == ["gone"]
    assert main(["plugins", "enable", "gone"]) == EXIT_DONE
    assert not Path(FILE).exists()


def test_other_tables_stay_as_they_are() -> None:
    rest = '# ours\ntitle = "x"\n\n[other]\nlist = [\n  1,\n]\n'
    Path(FILE).write_text(f'{rest}[plugins] # theirs\ndisable = [\n  "gone",\n]\n\n[last]\na = 1\n')
    assert main(["plugins", "disable", "acme-den"]) == EXIT_DONE
    text = Path(FILE).read_text()
    assert text.startswith(rest)
    assert tomllib.loads(text)["last"] == {"a": 1}
    assert disabled_here() == ["gone", "acme-den"]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=4), st.sampled_from(["", "[a]\nb = 1\n"]))
def test_any_name_is_written_so_that_it_is_read_back(names: list[str], others: str) -> None:
    text = _with_table(_with_table(others, ["before"]), names)
    read = tomllib.loads(text)
    assert read.get("plugins", {}).get("disable", []) == names
    assert read.get("a") == ({"b": 1} if others else None)


def test_file_and_environment_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_DISABLE", " Acme_Den[other] ,, x")
    Path(FILE).write_text('plugins.disable = ["acme-den[main]"]')
    assert disabled_names() == {
        "acme-den[main]": "toolkit.toml",
        "acme-den[other]": "TOOLKIT_DISABLE",
        "x": "TOOLKIT_DISABLE",
    }


@pytest.mark.parametrize("name", ["acme-dne", "acme-den[mian]"])
@pytest.mark.parametrize("action", ["disable", "enable"])
def test_an_unknown_name_gets_the_nearest(action: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", action, name]) == EXIT_USAGE
    assert printed(capsys) == [
        f'error: no plugin is called "{name}"; did you mean "{name.replace("dne", "den").replace("mian", "main")}"?',
        "next:  python -m toolkit plugins list",
    ]


def test_what_else_disables_a_plugin_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(FILE).write_text('plugins.disable = ["acme-den"]')
    assert main(["plugins", "enable", "acme-den[main]"]) == EXIT_USAGE
    assert printed(capsys) == [
        "error: acme-den[main] is disabled with all of acme-den",
        "next:  python -m toolkit plugins enable acme-den",
    ]
    monkeypatch.setenv("TOOLKIT_DISABLE", "acme-den")
    assert main(["plugins", "enable", "acme-den"]) == EXIT_USAGE
    assert printed(capsys) == [
        "error: acme-den is disabled by TOOLKIT_DISABLE",
        "next:  remove acme-den from TOOLKIT_DISABLE",
    ]


BAD = {
    b"[plugins\n": "toolkit.toml: Expected ']' at the end of a table declaration (at line 1, column 9)",
    b"plugins = 3": "toolkit.toml: plugins must be a table, [plugins]",
    b"[plugins]\ndisabel = []": 'toolkit.toml: plugins.disabel: unknown key; did you mean "disable"?',
    b"[plugins]\nx = []": "toolkit.toml: plugins.x: unknown key",
    b"[plugins]\ndisable = 'acme'": "toolkit.toml: plugins.disable must be an array of strings",
    b"[plugins]\ndisable = [1]": "toolkit.toml: plugins.disable must be an array of strings",
    b"\xff": "toolkit.toml: is not UTF-8 text (byte 0)",
}


@pytest.mark.parametrize("content", BAD)
@pytest.mark.parametrize("words", [["list"], ["disable", "acme-den"], ["enable", "acme-den"], ["doctor"]])
def test_a_file_that_cannot_be_used_is_an_error(
    content: bytes, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(FILE).write_bytes(content)
    assert main(["plugins", *words]) == EXIT_USAGE
    lines = printed(capsys)
    assert lines[0].startswith(f"error: {BAD[content]}")
    assert lines[1] == "next:  correct it, or remove the file to disable nothing"
    assert Path(FILE).read_bytes() == content
    with pytest.raises(SystemExit) as left:
        main(["plugins", "list", "--help"])
    assert left.value.code == EXIT_DONE


@pytest.mark.parametrize("text", ['plugins.disable = ["x"]\n', 'plugins = {disable = ["x"]}\n'])
def test_what_cannot_be_rewritten_is_left_alone(text: str) -> None:
    Path(FILE).write_text(text)
    assert main(["plugins", "disable", "acme-den"]) == EXIT_USAGE
    assert Path(FILE).read_text() == text
    with pytest.raises(ProjectError, match="the plugins setting cannot be edited in this form"):
        disable(["acme-den"])


def test_a_recipe_that_needs_a_disabled_plugin_reports_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "disable", "acme-den"]) == EXIT_DONE
    recipe = Path("r.toml")
    recipe.write_text(
        'model = "den"\n[data]\nname = "cifar10"\n[train]\nepochs = 1\nbatch = 8\noptimizer = {name = "sgd", lr = 0.1}'
    )
    capsys.readouterr()
    assert main(["check", str(recipe)]) == EXIT_USAGE
    assert printed(capsys)[0] == (
        'error: r.toml: model.name: unknown model "den"; disabled: '
        "acme-den[main] 1.0 (by toolkit.toml), acme-den[other] 1.0 (by toolkit.toml)"
    )
