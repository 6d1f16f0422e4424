"""Hostile plugins, one distribution each, called `zoo-NAME`; what the doctor says of each, and which commands survive.

Nothing is imported here but the standard library: bench/startup.py installs the zoo too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.installed import install

VERSION = "6.6"


@dataclass(frozen=True)
class Animal:
    """A hostile plugin."""

    source: str
    """Of its module; ANIMAL stands for its name."""
    named: str
    """What the doctor says of it: a regular expression."""
    fault: bool = True
    """Whether that breaks a rule; if not, it is only a notice."""


def hook(answer: str, kind: str = "models", before: str = "", name: str = "") -> str:
    """A plugin module that does `before` when it is imported, and whose hook returns `answer`."""
    lines = ["from toolkit import hookimpl", textwrap.dedent(before).strip(), "@hookimpl"]
    return "\n".join([*lines, f"def {name or f'toolkit_{kind}'}():", f"    return {answer}", ""])


def offering(factory: str, kind: str = "models", name: str = "ANIMAL") -> str:
    """A plugin module that offers one component, `factory` being the source of a function `build`."""
    return hook(f'{{"{name}": build}}', kind, factory)


NET = '''
def build(spec):
    """A network that {does}."""
    import os, random
    import numpy, torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(3, len(spec.classes))

        def forward(self, pixels):
            logits = self.head(pixels.mean(dim=(-2, -1)))
            {forward}

    return Net()
'''


def net(does: str, forward: str) -> str:
    return offering(NET.format(does=does, forward=forward))


# Plugins that cannot be used at all

BROKEN = {
    "raiser": Animal("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "leaver": Animal("import sys; sys.exit(3)", "SystemExit: 3"),
    "speller": Animal(hook("{}", name="toolkit_modles"), 'unknown hook toolkit_modles; did you mean "toolkit_models"'),
    "unparsed": Animal("def", "SyntaxError: invalid syntax"),
    "dependent": Animal("import zoo_flash_attention", "No module named 'zoo_flash_attention'"),
    "cyclic": Animal("from zoo_cyclic import nothing_yet", "ImportError: cannot import name 'nothing_yet'"),
    "basic": Animal("class Stop(BaseException): ...\nraise Stop('no catching me')", "Stop: no catching me"),
    "generator": Animal("raise GeneratorExit", "GeneratorExit"),
    "mute": Animal(
        "class Mute(Exception):\n    def __str__(self):\n        raise ValueError\nraise Mute", "import: Mute$"
    ),
    "recursive": Animal("def again(): again()\nagain()", "RecursionError: maximum recursion depth"),
    "hookless": Animal("x = 1", "has no hook: nothing in it is marked with toolkit.hookimpl"),
    "none": Animal(hook("None"), "toolkit_models returned NoneType, not names mapped to factories"),
    "list": Animal(hook("['ANIMAL']"), "toolkit_models returned list, not names"),
    "typed": Animal(hook("{'ANIMAL': 3}"), '"typed" is neither callable nor "package.module:attribute"'),
    "numbered": Animal(hook("{3: dict}"), "invalid component name 3: expected text without a colon"),
    "asking": Animal(
        "from toolkit import hookimpl\n@hookimpl\ndef toolkit_models(registry): return {}",
        "PluginValidationError: .*toolkit_models\\(registry\\)",
    ),
    "hooked": Animal(hook("{}['no such key']"), "KeyError: 'no such key'"),
    "newer": Animal(hook("{}", before='toolkit_contract = "2.0"'), "needs contract 2.0, this toolkit has .*: upgrade"),
    "odd": Animal(hook("{}", before="toolkit_contract = 2"), "toolkit_contract must be text such as"),
    "wrapper": Animal(
        "from toolkit import hookimpl\n@hookimpl(wrapper=True)\ndef toolkit_models():\n    yield\n    return {}",
        "import: [A-Za-z]+: ",
    ),
}

CHANGES = "changes while it is imported:"

# Plugins that work, and do what they should not while they are imported

INTRUSIVE = {
    "printer": Animal(hook("{}", before='print("Welcome to the zoo!")'), "prints while it is imported: Welcome to the"),
    "writer": Animal(hook("{}", before='import os; os.write(1, b"beneath")'), "prints while it is imported: beneath"),
    "closer": Animal(
        hook("{}", before='import os, sys; print("last words"); sys.stdout.close(); os.close(1)'),
        "prints while it is imported: last words",
    ),
    "sleeper": Animal(hook("{}", before="import time; time.sleep(2)"), r"slow to import: 2\d\d\d ms", fault=False),
    "mover": Animal(hook("{}", before="import os; os.chdir('/')"), f"{CHANGES} the working directory"),
    "setter": Animal(hook("{}", before="import os; os.environ['ZOO'] = 'open'"), f"{CHANGES} the environment"),
    "handler": Animal(
        hook("{}", before="import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"), f"{CHANGES} signal handlers"
    ),
    "silencer": Animal(
        hook("{}", before="import warnings; warnings.simplefilter('ignore')"), f"{CHANGES} warnings filters"
    ),
    "excepter": Animal(hook("{}", before="import sys; sys.excepthook = print"), f"{CHANGES} sys.excepthook"),
    "deepener": Animal(hook("{}", before="import sys; sys.setrecursionlimit(10**6)"), f"{CHANGES} the recursion limit"),
    "threader": Animal(
        hook(
            "{}",
            before="""
                import threading
                threading.Thread(target=threading.Event().wait, args=(60,), name="burrow", daemon=True).start()
            """,
        ),
        f"{CHANGES} thread burrow",
    ),
    "seeder": Animal(
        hook(
            '{"ANIMAL": "zoo_absent:build"}',
            before="""
                import random, sys
                random.seed(0)
                if "torch" in sys.modules:
                    sys.modules["torch"].manual_seed(0)
            """,
        ),
        f"{CHANGES} torch's global random state",
    ),
}

# Names that others have too

CLASHING = {
    "resnet": Animal(offering("def build(spec): ...", name="resnet18"), '"resnet18" is also offered by vision-toolkit'),
    "first": Animal(
        hook('{"twin": "zoo_absent:twin"}', "trackers"), '"twin" is also offered by zoo-second', fault=False
    ),
    "second": Animal(
        hook('{"twin": "zoo_absent:twin"}', "trackers"), '"twin" is also offered by zoo-first', fault=False
    ),
}

# Components that show what is wrong with them when they are imported, described or used

UNUSABLE = {
    "lost": Animal(hook('{"ANIMAL": "zoo_absent:build"}'), "cannot import zoo_absent:build: ModuleNotFoundError"),
    "uncalled": Animal(hook('{"ANIMAL": "json:__name__"}'), "json:__name__ is not callable"),
    "bare": Animal(offering("def build(spec, width=8): ..."), "width is not keyword-only"),
    "positional": Animal(
        offering("def build(spec, width, /): ..."), "argument width: is positional-only, so no recipe can give it"
    ),
    "unasked": Animal(offering("def build(*, width=8): ..."), "takes no positional argument, but the toolkit passes"),
    "nowhere": Animal(offering("def build(spec, *, width: 'Nowhere' = 8): ..."), "annotation Nowhere: NameError"),
    "builtin": Animal(hook('{"ANIMAL": dict}'), "signature: ValueError: no signature found"),
    "exiting": Animal(offering('def build(spec):\n    """It leaves."""\n    raise SystemExit(5)'), "SystemExit: 5"),
    "shapeless": Animal(net("has one class too many", "return logits.repeat(1, 2)"), "logits: .*"),
    "nan": Animal(net("gives no numbers", "return logits * float('nan')"), "logits: .*"),
    "stained": Animal(net("spoils what it is given", "pixels.zero_(); return logits"), "untouched: .*changed"),
    "seeding": Animal(
        net("sets seeds", "torch.manual_seed(0); random.seed(0); numpy.random.seed(0); return logits"),
        "torch's global generator was seeded",
    ),
    "unfloating": Animal(
        offering(
            'def build(spec):\n    """It gives numbers between 0 and 1."""\n'
            "    from dataclasses import replace\n"
            "    return lambda batch, draws: replace(batch, pixels=batch.pixels / 255)",
            "augmentations",
        ),
        "pixels: .*",
    ),
    "mutating": Animal(
        offering(
            'def build(spec):\n    """It writes into its batch."""\n'
            "    def act(batch, draws):\n        batch.pixels.zero_()\n        return batch\n    return act",
            "augmentations",
        ),
        "untouched: .*changed",
    ),
    "scoreless": Animal(
        offering(
            'def build(spec):\n    """It has no scores."""\n    return Empty()\n'
            "class Empty:\n    def update(self, logits, targets): ...\n    def compute(self): return None",
            "metrics",
        ),
        "compute gave NoneType, not names mapped to scores",
    ),
}

# Plugins and components that end the process, or never come back: every command that imports them goes with them

DEADLY = {
    "vanisher": Animal("import os; os._exit(7)", "import: it ended the process with exit code 7"),
    "clean": Animal("import os; os._exit(0)", "import: it ended the process with exit code 0"),
    "crasher": Animal(
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "import: it ended the process by SIGSEGV"
    ),
    "interrupter": Animal("raise KeyboardInterrupt", "import: it ended the process by SIGINT"),
    "hanger": Animal("import threading; threading.Event().wait()", "import: it did not answer for .* s and was ended"),
}

ZOO: Mapping[str, Animal] = {**BROKEN, **INTRUSIVE, **CLASHING, **UNUSABLE}
"""All with which every command on unrelated recipes works."""


def release(site: Path, animals: Mapping[str, Animal] = ZOO) -> None:
    """Install these into `site`."""
    for name, animal in animals.items():
        install(
            site, f"zoo-{name}", {module(name): animal.source.replace("ANIMAL", name)}, {"main": module(name)}, VERSION
        )


def module(name: str) -> str:
    return f"zoo_{name}"


def modules(animals: Iterable[str] = ZOO) -> list[str]:
    return [module(name) for name in animals]
