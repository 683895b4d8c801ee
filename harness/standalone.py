"""Starting a module of ours in a Python that sees the standard library and this project, and no more.

So started, a process comes up in a twentieth of a second, and nothing that is installed beside us can
change what it does.
"""

import sys

from harness.paths import PROJECT

PROGRAM = (
    "import sys; sys.path += sys.argv[3:]; "
    "from importlib import import_module; getattr(import_module(sys.argv[1]), sys.argv[2])()"
)


def standalone_argv(module: str, function: str, *folders: str) -> list[str]:
    """The command that calls `function` of `module`, without arguments.

    Args:
        folders: put on the path behind this project, such as those of packages that the module needs.
    """
    return [sys.executable, "-I", "-S", "-c", PROGRAM, module, function, str(PROJECT), *folders]
